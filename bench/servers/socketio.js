// Socket.IO with its Redis adapter: node socketio.js PORT REDIS_URL
import { createServer } from 'node:http'

import { createAdapter } from '@socket.io/redis-adapter'
import { createClient } from 'redis'
import { Server } from 'socket.io'

const [port, url] = process.argv.slice(2)
const publisher = createClient({ url })
const subscriber = publisher.duplicate()
await Promise.all([publisher.connect(), subscriber.connect()])

const http = createServer()
const server = new Server(http, {
  adapter: createAdapter(publisher, subscriber),
  transports: ['websocket'],
  // Its pings come every 25 s, and a load generator that is busy elsewhere must not be taken for dead.
  pingInterval: 300_000,
  pingTimeout: 300_000
})
server.on('connection', (socket) => socket.join(socket.handshake.query.channel))
http.listen({ port: Number(port), host: '127.0.0.1', backlog: 2048 })
