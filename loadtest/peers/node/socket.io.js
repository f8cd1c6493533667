// Rooms with Socket.IO: the event `message` goes to all of the room that the query names, the sender too.
//
//     node socket.io.js PORT
//     ws://127.0.0.1:PORT/socket.io/?EIO=4&transport=websocket&topic=NAME   then 40, then 42["message","PAYLOAD"]
//
// Settings: https://socket.io/docs/v4/performance-tuning (bufferutil and utf-8-validate are installed; the request of the
// handshake is let go of, to save memory), https://socket.io/docs/v4/server-options (WebSocket as the only transport, no client
// files served; permessage-deflate off, as it is by default: it "adds a significant overhead").
'use strict';

const http = require('node:http');
const { Server } = require('socket.io');

const port = Number(process.argv[2]);

const server = http.createServer();
const io = new Server(server, {
  transports: ['websocket'],
  perMessageDeflate: false,
  httpCompression: false,
  serveClient: false,
});

io.engine.on('connection', (rawSocket) => {
  rawSocket.request = null;
});

io.on('connection', (socket) => {
  const room = `topic:${socket.handshake.query.topic ?? ''}`;
  socket.join(room);
  socket.on('message', (message) => io.to(room).emit('message', message));
});

server.listen({ port, host: '127.0.0.1', backlog: 4096 });
process.on('SIGTERM', () => process.exit(0));
