"""The what-if tool: a cluster played in virtual time. `coulee lb simulate` is its command."""
