// Echo and fan-out with ws.
//
//     node ws.js PORT [--no-cork]
//
// permessage-deflate stays off, as it is by default on a server: "adds a significant overhead in terms of performance and memory
// consumption". bufferutil is installed: "Opt-in for performance" (both https://github.com/websockets/ws/blob/master/README.md).
//
// Messages that one turn of the event loop brings are written to a socket with one system call: Node's documentation of
// writable.cork() has it for "several small chunks", uncork() deferred by process.nextTick()
// (https://nodejs.org/api/stream.html#writablecork). The socket is that of the HTTP server's 'upgrade', so none of ws's private
// fields are touched. --no-cork leaves it to ws: a system call a message.
'use strict';

const http = require('node:http');
const { WebSocketServer } = require('ws');

const port = Number(process.argv[2]);
const isCorked = process.argv[3] !== '--no-cork';

const server = http.createServer((request, response) => response.writeHead(426).end());
const wss = new WebSocketServer({ noServer: true, clientTracking: false, perMessageDeflate: false });

const topics = new Map();
let corked = new Set();

function cork(socket) {
  if (!isCorked || corked.has(socket)) return;
  if (corked.size === 0) process.nextTick(uncork);
  corked.add(socket);
  socket.cork();
}

function uncork() {
  const sockets = corked;
  corked = new Set();
  for (const socket of sockets) socket.uncork();
}

function echo(ws, socket) {
  ws.on('message', (data, isBinary) => {
    cork(socket);
    ws.send(data, { binary: isBinary });
  });
}

function fanOut(ws, socket, path) {
  const topic = topics.get(path) ?? new Map();
  topics.set(path, topic);
  topic.set(ws, socket);
  ws.on('message', (data, isBinary) => {
    for (const [subscriber, itsSocket] of topic) {
      cork(itsSocket);
      subscriber.send(data, { binary: isBinary });
    }
  });
  ws.on('close', () => topic.delete(ws));
}

server.on('upgrade', (request, socket, head) => {
  socket.setNoDelay(true);
  wss.handleUpgrade(request, socket, head, (ws) => {
    ws.on('error', () => ws.terminate());
    if (request.url === '/echo') echo(ws, socket);
    else fanOut(ws, socket, request.url);
  });
});

server.listen({ port, host: '127.0.0.1', backlog: 4096 });
process.on('SIGTERM', () => process.exit(0));
