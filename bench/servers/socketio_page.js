// Socket.IO as it comes, a page with its client, and a message every 50 ms: node socketio_page.js PORT
import { createServer } from 'node:http'

import { Server } from 'socket.io'

const PAGE = `<!doctype html><script>const arrivals = [];
const arrived = () => arrivals.push(performance.timeOrigin + performance.now());</script>
<script src="/socket.io/socket.io.js"></script>
<script>io().on('m', arrived);</script>`

const http = createServer((request, response) => {
  response.setHeader('Content-Type', 'text/html')
  response.end(PAGE)
})
const server = new Server(http)
setInterval(() => server.emit('m', 'tick'), 50)
http.listen({ port: Number(process.argv[2]), host: '127.0.0.1' })
