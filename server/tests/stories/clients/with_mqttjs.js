// What people do with mqtt.js: with_mqttjs.js HOST PORT VERSION TRANSPORT, where VERSION is 3 (3.1.1) or 5, TRANSPORT `tcp` or `ws`.
//
// Prints each scenario that held, at last `done`.

import assert from 'node:assert/strict'
import { on, once } from 'node:events'
import mqtt from 'mqtt'

const [HOST, PORT, VERSION, TRANSPORT] = process.argv.slice(2)
const V5 = VERSION === '5'
const BROKER = TRANSPORT === 'ws' ? `ws://${HOST}:${PORT}/mqtt` : `mqtt://${HOST}:${PORT}`
const PATIENCE_MS = 60_000

// A connected client; messages wait until they are asked for.
class Client {
  static async connected(user, { session = false, properties = {}, ...options } = {}) {
    const client = new Client()
    if (session) properties.sessionExpiryInterval = 3600
    client.mqtt = mqtt.connect(BROKER, {
      username: user,
      password: `${user}-secret`,
      protocolVersion: V5 ? 5 : 4,
      clean: !session,
      reconnectPeriod: 0,
      ...(V5 ? { properties } : {}),
      ...options,
    })
    client.messages = on(client.mqtt, 'message')
    const [connack] = await inTime(once(client.mqtt, 'connect'))
    client.sessionPresent = connack.sessionPresent
    return client
  }

  async subscribe(topic, qos = 1) {
    const granted = await inTime(this.mqtt.subscribeAsync(topic, { qos }))
    assert.deepEqual(granted.map((grant) => grant.qos), [qos])
  }

  async unsubscribe(topic) {
    await inTime(this.mqtt.unsubscribeAsync(topic))
  }

  // Publishes and waits until that is acknowledged; a refusal is thrown.
  async publish(topic, payload = '', options = {}) {
    return await inTime(this.mqtt.publishAsync(topic, payload, { qos: 1, ...options }))
  }

  async message() {
    const [topic, payload, packet] = (await inTime(this.messages.next())).value
    return { ...packet, topic, payload, text: payload.toString() }
  }

  async take(count) {
    const messages = []
    while (messages.length < count) messages.push(await this.message())
    return messages
  }

  async disconnect() {
    await inTime(this.mqtt.endAsync())
  }

  // Ends the connection without DISCONNECT.
  async lose() {
    await inTime(this.mqtt.endAsync(true))
  }
}

function inTime(promise) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('waited in vain')), PATIENCE_MS)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

function numbers(count) {
  return Array.from({ length: count }, (_, number) => number)
}

async function eachQos(alice, bob) {
  for (const qos of [0, 1, 2]) {
    await bob.subscribe(`qos/${qos}`, qos)
    await alice.publish(`qos/${qos}`, `at ${qos}`, { qos })
    const message = await bob.message()
    assert.deepEqual([message.text, message.qos, message.retain], [`at ${qos}`, qos, false])
  }
}

async function wildcards(alice, bob) {
  await bob.subscribe('wild/+/x/#')
  for (const topic of ['wild/a/y', 'wild/a/b/x', 'wild/a/x', 'wild/b/x/y/z']) await alice.publish(topic)
  const topics = (await bob.take(2)).map((message) => message.topic)
  assert.deepEqual(topics, ['wild/a/x', 'wild/b/x/y/z'])
  await bob.unsubscribe('wild/+/x/#')
  await bob.subscribe('wild/end')
  await alice.publish('wild/a/x')
  await alice.publish('wild/end')
  assert.equal((await bob.message()).topic, 'wild/end')
}

async function retained(alice, bob) {
  await alice.publish('kept/1', 'old', { retain: true })
  await alice.publish('kept/1', 'new', { retain: true })
  await alice.publish('kept/2', 'gone', { retain: true })
  await alice.publish('kept/2', '', { retain: true })
  await bob.subscribe('kept/+')
  const kept = await bob.message()
  assert.deepEqual([kept.topic, kept.text, kept.retain], ['kept/1', 'new', true])
  await alice.publish('kept/2', 'live', { retain: true })
  const live = await bob.message()
  assert.deepEqual([live.text, live.retain], ['live', false])
}

async function will(alice, bob) {
  await bob.subscribe('will/+')
  const properties = V5 ? { contentType: 'text/plain' } : undefined
  const lost = { topic: 'will/1', payload: Buffer.from('lost'), qos: 1, properties }
  await (await Client.connected('alice', { will: lost })).lose()
  const message = await bob.message()
  assert.deepEqual([message.topic, message.text], ['will/1', 'lost'])
  if (V5) assert.equal(message.properties.contentType, 'text/plain')
  const notLost = { topic: 'will/2', payload: Buffer.from('not lost'), qos: 1 }
  await (await Client.connected('alice', { will: notLost })).disconnect()
  await alice.publish('will/end')
  assert.equal((await bob.message()).topic, 'will/end')
}

async function session(alice) {
  const options = { clientId: 'away', session: true }
  let away = await Client.connected('bob', options)
  assert(!away.sessionPresent)
  await away.subscribe('queue/1', 1)
  await away.subscribe('queue/2', 2)
  await away.disconnect()
  for (const number of numbers(100)) {
    const qos = (number % 2) + 1
    await alice.publish(`queue/${qos}`, `${number}`, { qos })
  }
  away = await Client.connected('bob', options)
  assert(away.sessionPresent)
  const messages = await away.take(100)
  for (const qos of [1, 2]) {
    const queued = messages.filter((message) => message.topic === `queue/${qos}`)
    assert.deepEqual(queued.map((message) => Number(message.text)), numbers(100).filter((number) => (number % 2) + 1 === qos))
    assert(queued.every((message) => message.qos === qos))
  }
  await away.disconnect()
}

async function shared(alice, bob) {
  const members = [bob, await Client.connected('bob')]
  for (const member of members) {
    await member.subscribe('$share/team/jobs/+')
    await member.subscribe('end')
  }
  for (const number of numbers(20)) await alice.publish(`jobs/${number}`, `${number}`)
  await alice.publish('end')
  const shares = []
  for (const member of members) {
    const share = []
    for (let message; (message = await member.message()).topic !== 'end'; ) share.push(Number(message.text))
    shares.push(share)
  }
  assert(shares.every((share) => share.length > 0), 'somebody was left out')
  assert.deepEqual(shares.flat().sort((a, b) => a - b), numbers(20))
  await members[1].disconnect()
}

async function sizes(alice, bob) {
  await bob.subscribe('size')
  // Around the limits of what WebSocket frames announce in one and in three bytes.
  for (const size of [0, 1, 115, 116, 117, 118, 119, 120, 65_520, 65_535, 65_536, 200_000]) {
    const payload = Buffer.from(numbers(size).map((number) => number % 251))
    await alice.publish('size', payload)
    assert(payload.equals((await bob.message()).payload), `${size}`)
  }
}

async function withProperties(alice, bob) {
  await bob.subscribe('properties')
  const told = {
    userProperties: { a: ['1', '2'], ü: '' },
    contentType: 'application/json',
    responseTopic: 'answers/alice',
    correlationData: Buffer.from([0, 255]),
    payloadFormatIndicator: true,
  }
  await alice.publish('properties', '{}', { properties: { ...told, messageExpiryInterval: 100 } })
  const { messageExpiryInterval, userProperties, ...heard } = (await bob.message()).properties
  assert.deepEqual({ ...userProperties }, told.userProperties)
  assert.deepEqual({ ...heard, userProperties: told.userProperties }, told)
  assert(messageExpiryInterval >= 90 && messageExpiryInterval <= 100)
}

async function topicAlias() {
  const alice = await Client.connected('alice', { autoAssignTopicAlias: true })
  const bob = await Client.connected('bob', { properties: { topicAliasMaximum: 10 } })
  let [sent, received] = [0, 0]
  const aliased = (packet) => packet.cmd === 'publish' && packet.topic === '' && packet.properties.topicAlias > 0
  alice.mqtt.on('packetsend', (packet) => (sent += aliased(packet)))
  bob.mqtt.on('packetreceive', (packet) => (received += aliased(packet)))
  await bob.subscribe('a/long/name')
  for (const number of numbers(3)) await alice.publish('a/long/name', `${number}`)
  const messages = await bob.take(3)
  assert.deepEqual(messages.map((message) => [message.topic, message.text]), numbers(3).map((number) => ['a/long/name', `${number}`]))
  assert.deepEqual([sent, received], [2, 2])
  await alice.disconnect()
  await bob.disconnect()
}

async function chat(alice, bob) {
  const watcher = await Client.connected('alice')
  await watcher.subscribe('chat/me/rcpt/+')
  const options = { clientId: 'reader', session: true }
  let reader = await Client.connected('bob', options)
  await reader.subscribe('chat/me/txt/+')
  await reader.disconnect()
  await Promise.all(numbers(100).map((number) => alice.publish('chat/to/@bob', `line ${number}`, { qos: (number % 2) + 1 })))
  await bob.subscribe('chat/me/in/+')
  const entries = (await bob.take(100)).map((message) => JSON.parse(message.text))
  assert.deepEqual(entries.map((entry) => entry.t), numbers(100).map((number) => `line ${number}`))
  reader = await Client.connected('bob', options)
  assert(reader.sessionPresent)
  const lines = (await reader.take(100)).map((message) => message.text)
  assert.deepEqual(lines, numbers(100).map((number) => `alice: line ${number}`))

  const newest = entries.at(-1)
  await reader.publish(`chat/c/${newest.cid}/read`, `${newest.seq}`)
  for (let receipt; (receipt = await watcher.message()); ) {
    assert.equal(receipt.topic, `chat/me/rcpt/${newest.cid}`)
    if (JSON.parse(receipt.text).read_all === newest.seq) break
  }
  await reader.disconnect()
  await watcher.disconnect()
}

async function refusal(alice) {
  await alice.subscribe('chat/me/err/+')
  const publish = alice.publish('chat/to/@nobody', 'is there anybody?')
  if (V5) await assert.rejects(publish, { code: 0x90 })
  else await publish
  const message = await alice.message()
  assert(message.topic.startsWith('chat/me/err/@'), message.topic)
  assert.equal(JSON.parse(message.text).error, 'not_found')
}

async function call(alice) {
  await alice.subscribe('chat/me/rpc/+')
  const properties = { responseTopic: 'chat/me/rpc/1', correlationData: Buffer.from([0, 1]) }
  if (V5) await alice.publish('chat/rpc/me.get', '', { properties })
  else await alice.publish('chat/rpc/me.get/1')
  const reply = await alice.message()
  assert.equal(reply.topic, 'chat/me/rpc/1')
  assert.equal(JSON.parse(reply.text).ok.handle, 'alice', reply.text)
  if (V5) assert.deepEqual(reply.properties.correlationData, properties.correlationData)
}

const [alice, bob] = [await Client.connected('alice'), await Client.connected('bob')]
const ofBoth = [eachQos, wildcards, retained, will, session, shared, sizes, chat, refusal, call]
for (const scenario of V5 ? [...ofBoth, withProperties, topicAlias] : ofBoth) {
  await scenario(alice, bob)
  console.log(scenario.name)
}
await alice.disconnect()
await bob.disconnect()
console.log('done')
