// Sarama as a line-oriented tool.
package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/IBM/sarama"

	"floe/interop/common"
)

func main() {
	common.Run(common.Client{Produce: produce, Consume: consume, Recreate: recreate, Member: member})
}

var codecs = map[string]sarama.CompressionCodec{
	"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
	"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
}

func config(f common.Flags) *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.MaxVersion
	c.Producer.RequiredAcks = sarama.WaitForAll
	if f.Mode == "unacknowledged" {
		c.Producer.RequiredAcks = sarama.NoResponse
	}
	c.Producer.Return.Successes = true
	c.Producer.MaxMessageBytes = 2_000_000
	c.Producer.Partitioner = sarama.NewManualPartitioner
	c.Producer.Compression = codecs[f.Codec]
	c.Producer.Idempotent = f.Mode == "idempotent"
	if c.Producer.Idempotent {
		// Sarama asks for this.
		c.Net.MaxOpenRequests = 1
	}
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.AutoCommit.Enable = false
	c.Consumer.Fetch.Default = 2_000_000
	c.Consumer.Group.Session.Timeout = f.Session
	c.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	c.Consumer.Group.Rebalance.Retry.Backoff = 200 * time.Millisecond
	c.Consumer.MaxWaitTime = 200 * time.Millisecond
	c.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyRange()}
	return c
}

// encoder keeps null apart from empty.
func encoder(data []byte) sarama.Encoder {
	if data == nil {
		return nil
	}
	return sarama.ByteEncoder(data)
}

func produce(f common.Flags) error {
	producer, err := sarama.NewSyncProducer([]string{f.Bootstrap}, config(f))
	if err != nil {
		return err
	}
	defer producer.Close()
	var messages []*sarama.ProducerMessage
	for i := range f.Count {
		key, value, headers, timestamp := common.Record(i, f.Count)
		message := &sarama.ProducerMessage{Topic: f.Topic, Key: encoder(key), Value: encoder(value), Timestamp: timestamp}
		for _, h := range headers {
			message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(h.Key), Value: h.Value})
		}
		messages = append(messages, message)
	}
	if err := producer.SendMessages(messages); err != nil {
		return err
	}
	common.Say(map[string]any{"event": "produced", "count": f.Count})
	return nil
}

func recreate(f common.Flags) error {
	brokers := []string{f.Bootstrap}
	producer, err := sarama.NewSyncProducer(brokers, config(f))
	if err != nil {
		return err
	}
	defer producer.Close()
	send := func(value string) (int64, error) {
		_, offset, err := producer.SendMessage(&sarama.ProducerMessage{Topic: f.Topic, Value: sarama.StringEncoder(value)})
		return offset, err
	}
	for i := range f.Count {
		if _, err := send(fmt.Sprintf("before-%d", i)); err != nil {
			return err
		}
	}
	admin, err := sarama.NewClusterAdmin(brokers, config(f))
	if err != nil {
		return err
	}
	defer admin.Close()
	if err := admin.DeleteTopic(f.Topic); err != nil {
		return err
	}
	detail := &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1}
	if err := common.Insist(func() error { return admin.CreateTopic(f.Topic, detail, false) }); err != nil {
		return err
	}
	for i := range f.Count {
		offset, err := send(fmt.Sprintf("after-%d", i))
		if err != nil {
			return err
		}
		common.Say(map[string]any{"event": "delivered", "offset": offset})
	}
	return nil
}

func consume(f common.Flags) error {
	consumer, err := sarama.NewConsumer([]string{f.Bootstrap}, config(f))
	if err != nil {
		return err
	}
	defer consumer.Close()
	partition, err := consumer.ConsumePartition(f.Topic, 0, sarama.OffsetOldest)
	if err != nil {
		return err
	}
	defer partition.Close()
	patience := time.After(common.Patience)
	for range f.Count {
		select {
		case m := <-partition.Messages():
			var headers []common.Header
			for _, h := range m.Headers {
				headers = append(headers, common.Header{Key: string(h.Key), Value: h.Value})
			}
			common.SayRecord(m.Offset, m.Timestamp, m.Key, m.Value, headers)
		case <-patience:
			return nil
		}
	}
	return nil
}

// handler is a member of a group; Sarama calls it once for each generation.
type handler struct{ topic string }

func (h handler) Setup(session sarama.ConsumerGroupSession) error {
	partitions := append([]int32{}, session.Claims()[h.topic]...)
	slices.Sort(partitions)
	common.Say(map[string]any{"event": "assigned", "partitions": partitions})
	return nil
}

func (h handler) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (h handler) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case m, open := <-claim.Messages():
			if !open {
				return nil
			}
			common.SayRead(m.Partition, m.Offset)
			session.MarkMessage(m, "")
			session.Commit()
			// A commit reports no error. While the session lasts, the broker has taken it.
			if session.Context().Err() == nil {
				common.SayCommitted([][2]int64{{int64(m.Partition), m.Offset}})
			}
		case <-session.Context().Done():
			return nil
		}
	}
}

func member(stopped context.Context, f common.Flags) error {
	group, err := sarama.NewConsumerGroup([]string{f.Bootstrap}, f.Group, config(f))
	if err != nil {
		return err
	}
	defer group.Close()
	for stopped.Err() == nil {
		err := group.Consume(stopped, []string{f.Topic}, handler{f.Topic})
		if errors.Is(err, sarama.ErrClosedConsumerGroup) {
			return err
		}
		if err != nil {
			// The broker is away or a rebalance failed: try again.
			time.Sleep(200 * time.Millisecond)
		}
	}
	return nil
}
