// kafkajs, with the codecs that are written in JavaScript. The other clients in this folder's parent do the same.
'use strict'
const { createHash, randomUUID } = require('crypto')
const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = require('kafkajs')

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')

const CODECS = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy }
// Records of one send are one batch.
const BATCH = 10
// In Apache Kafka the name of a deleted topic becomes free, and a new topic known, only after a moment.
const FREE_MS = 20000

const [action, ...words] = process.argv.slice(2)
const flags = { mode: 'idempotent', codec: 'none', count: '0', session: '6000', patience: '30000' }
for (let i = 0; i + 1 < words.length; i += 2) flags[words[i].slice(2)] = words[i + 1]
const topic = flags.topic
const count = Number(flags.count)
const kafka = new Kafka({
  brokers: [flags.bootstrap], logLevel: logLevel.NOTHING, requestTimeout: Number(flags.patience),
  retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 60 },
})

const say = event => console.log(JSON.stringify(event))
const sleep = ms => new Promise(wake => setTimeout(wake, ms))
const digest = data => data === null ? null : createHash('sha256').update(data).digest('hex').slice(0, 16)

// Record i; common.py has the same, with fewer nulls.
function record(i) {
  const key = i % 5 === 0 ? null : `key-${i}`
  let value = i % 7 === 3 && key ? null : Buffer.from(`value-${i}-`.repeat(1 + i % 50))
  if (i === count - 1) value = Buffer.from(Array.from({ length: 1000000 }, (_, b) => b * 31 % 251))
  const headers = i % 3 === 0 ? { h1: [Buffer.from('a'), Buffer.from('b')], empty: Buffer.alloc(0), nul: Buffer.alloc(0) } : {}
  return { partition: 0, key, value, headers, timestamp: String(1700000000000 + i * 1000) }
}

async function producer() {
  const made = kafka.producer({ idempotent: flags.mode === 'idempotent', allowAutoTopicCreation: false })
  await made.connect()
  return made
}

async function produce() {
  const sender = await producer()
  for (let i = 0; i < count; i += BATCH) {
    const messages = Array.from({ length: Math.min(BATCH, count - i) }, (_, n) => record(i + n))
    await sender.send({ topic, messages, acks: flags.mode === 'unacknowledged' ? 0 : -1, compression: CODECS[flags.codec] })
  }
  await sender.disconnect()
  say({ event: 'produced', count })
}

async function anew() {
  const admin = kafka.admin()
  await admin.connect()
  await admin.deleteTopics({ topics: [topic] })
  const insist = async attempt => {
    for (const end = Date.now() + FREE_MS; !await attempt(); await sleep(200)) {
      if (Date.now() > end) throw new Error('the topic cannot be created again')
    }
  }
  // The answer is false while the name is taken. kafkajs itself fails if it asks for the leader too early.
  await insist(() => admin.createTopics({ waitForLeaders: false, topics: [{ topic, numPartitions: 1, replicationFactor: 1 }] }))
  await insist(() => admin.fetchTopicOffsets(topic).then(() => true, () => false))
  await admin.disconnect()
}

async function recreate() {
  const sender = await producer()
  const send = async value => {
    const [{ baseOffset }] = await sender.send({ topic, messages: [{ partition: 0, value }], acks: -1 })
    return Number(baseOffset)
  }
  for (let i = 0; i < count; i++) await send(`before-${i}`)
  await anew()
  for (let i = 0; i < count; i++) say({ event: 'delivered', offset: await send(`after-${i}`) })
  await sender.disconnect()
}

function consumer(groupId) {
  return kafka.consumer({
    groupId, sessionTimeout: Number(flags.session), heartbeatInterval: 500, rebalanceTimeout: 10000,
    maxWaitTimeInMs: 200, maxBytesPerPartition: 2000000, allowAutoTopicCreation: false,
  })
}

// kafkajs reads only as a member of a group.
async function consume() {
  const reader = consumer(randomUUID())
  await reader.connect()
  await reader.subscribe({ topics: [topic], fromBeginning: true })
  let seen = 0
  await new Promise((done, failed) => {
    const patience = setTimeout(done, 30000)
    reader.on(reader.events.CRASH, ({ payload }) => payload.restart || failed(payload.error))
    const eachMessage = async ({ message }) => {
      const headers = Object.entries(message.headers)
        .flatMap(([name, values]) => [values].flat().map(value => [name, digest(value)]))
      say({
        event: 'record', offset: Number(message.offset), timestamp: Number(message.timestamp),
        key: digest(message.key), value: digest(message.value), headers,
      })
      if (++seen === count) { clearTimeout(patience); done() }
    }
    reader.run({ autoCommit: false, eachMessage }).catch(failed)
  })
  await reader.disconnect()
}

async function member() {
  const reader = consumer(flags.group)
  reader.on(reader.events.GROUP_JOIN, ({ payload }) =>
    say({ event: 'assigned', partitions: (payload.memberAssignment[topic] || []).sort((a, b) => a - b) }))
  process.on('SIGTERM', async () => { await reader.disconnect(); process.exit(0) })
  await reader.connect()
  await reader.subscribe({ topics: [topic], fromBeginning: true })
  await reader.run({
    autoCommit: false,
    eachMessage: async ({ partition, message }) => {
      const offset = Number(message.offset)
      say({ event: 'record', partition, offset })
      try {
        await reader.commitOffsets([{ topic, partition, offset: String(offset + 1) }])
        say({ event: 'committed', records: [[partition, offset]] })
      } catch (error) {
        // A rebalance is in progress, or the broker was killed and does not know this member: the record is read again.
        // kafkajs hides the code of the second in an error that may not be retried, and stops for good if it gets that
        // error back from here. The next heartbeat lets it join again.
        if (!['KafkaJSProtocolError', 'KafkaJSNonRetriableError'].includes(error.name)) throw error
      }
    },
  })
}

const actions = { produce, consume, member, recreate }
actions[action]().catch(error => { console.error(error); process.exit(1) })
