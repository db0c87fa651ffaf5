// The proxy one writes for node: http-proxy with a keep-alive agent, as its own documentation has it.
// Usage: node_proxy.js PORT ORIGIN_PORT, with http-proxy in a folder that NODE_PATH names.
"use strict";
const http = require("node:http");
const httpProxy = require("http-proxy");

const HOST = "127.0.0.1";
const [port, origin] = process.argv.slice(2).map(Number);
const agent = new http.Agent({ keepAlive: true });
const proxy = httpProxy.createProxyServer({ target: { host: HOST, port: origin }, agent });

proxy.on("error", (error, request, response) => {
  if (response.writeHead && !response.headersSent) response.writeHead(502);
  response.end(`${error.message}\n`);
});
const server = http.createServer((request, response) => proxy.web(request, response));
server.keepAliveTimeout = 600_000;
server.requestTimeout = 0;
server.listen(port, HOST);
