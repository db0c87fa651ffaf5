"""Each backend of ours passes the suite that coulee gives to its users, on real sockets and in the simulator."""

from __future__ import annotations

from coulee import conformance


class TestListeners(conformance.Listeners): ...


class TestConnecting(conformance.Connecting): ...


class TestAddresses(conformance.Addresses): ...


class TestNames(conformance.Names): ...


class TestOptions(conformance.Options): ...


class TestCredit(conformance.Credit): ...


class TestHalfClose(conformance.HalfClose): ...


class TestFailure(conformance.Failure): ...


class TestResets(conformance.Resets): ...


class TestSecuring(conformance.Securing): ...


class TestJobs(conformance.Jobs): ...


class TestAlarms(conformance.Alarms): ...


class TestExhaustion(conformance.Exhaustion): ...


class TestVolume(conformance.Volume): ...
