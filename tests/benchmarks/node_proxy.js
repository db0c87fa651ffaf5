// The proxy one writes for node: http-proxy with a keep-alive agent, as its own documentation has it.
// Usage: node_proxy.js PORT ORIGIN_PORT [CERTIFICATE KEY], with http-proxy in a folder that NODE_PATH names.
"use strict";
const fs = require("node:fs");
const http = require("node:http");
const https = require("node:https");
const httpProxy = require("http-proxy");

const HOST = "127.0.0.1";
const [port, origin] = process.argv.slice(2, 4).map(Number);
const [certificate, key] = process.argv.slice(4).map((path) => fs.readFileSync(path));
const agent = new http.Agent({ keepAlive: true });
const proxy = httpProxy.createProxyServer({ target: { host: HOST, port: origin }, agent });

proxy.on("error", (error, request, response) => {
  if (response.writeHead && !response.headersSent) response.writeHead(502);
  response.end(`${error.message}\n`);
});
const forward = (request, response) => proxy.web(request, response);
const server = certificate ? https.createServer({ cert: certificate, key }, forward) : http.createServer(forward);
server.keepAliveTimeout = 600_000;
server.requestTimeout = 0;
server.listen(port, HOST);
