// Channels with Faye, which speaks Bayeux: https://faye.jcoglan.com/node.html
//
//     node faye.js PORT
//     ws://127.0.0.1:PORT/faye
//
// The engine is the one in memory, the default, and the only one that is no client of another server. No extensions, no
// permessage-deflate: both cost time for each message, and neither is there unless it is added.
'use strict';

const http = require('node:http');
const faye = require('faye');

const port = Number(process.argv[2]);

const server = http.createServer();
const bayeux = new faye.NodeAdapter({ mount: '/faye', timeout: 45 });
bayeux.attach(server);

server.on('connection', (socket) => socket.setNoDelay(true));
server.listen({ port, host: '127.0.0.1', backlog: 4096 });
process.on('SIGTERM', () => process.exit(0));
