// franz-go as a line-oriented tool.
package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"floe/interop/common"
)

func main() {
	common.Run(common.Client{Produce: produce, Consume: consume, Recreate: recreate, Member: member})
}

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

func client(f common.Flags, more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(f.Bootstrap),
		kgo.ProducerBatchMaxBytes(2_000_000), kgo.BrokerMaxWriteBytes(4_000_000),
		kgo.ProducerBatchCompression(codecs[f.Codec]),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	}, more...)...)
}

func produce(f common.Flags) error {
	var more []kgo.Opt
	if f.Mode != "idempotent" {
		more = append(more, kgo.DisableIdempotentWrite())
	}
	if f.Mode == "unacknowledged" {
		more = append(more, kgo.RequiredAcks(kgo.NoAck()))
	}
	producer, err := client(f, more...)
	if err != nil {
		return err
	}
	defer producer.Close()
	var records []*kgo.Record
	for i := range f.Count {
		key, value, headers, timestamp := common.Record(i, f.Count)
		record := &kgo.Record{Topic: f.Topic, Key: key, Value: value, Timestamp: timestamp}
		for _, h := range headers {
			record.Headers = append(record.Headers, kgo.RecordHeader(h))
		}
		records = append(records, record)
	}
	if err := producer.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		return err
	}
	common.Say(map[string]any{"event": "produced", "count": f.Count})
	return nil
}

func recreate(f common.Flags) error {
	producer, err := client(f)
	if err != nil {
		return err
	}
	defer producer.Close()
	ctx := context.Background()
	send := func(tag string) kgo.ProduceResults {
		var records []*kgo.Record
		for i := range f.Count {
			records = append(records, &kgo.Record{Topic: f.Topic, Value: fmt.Appendf(nil, "%s-%d", tag, i)})
		}
		return producer.ProduceSync(ctx, records...)
	}
	if err := send("before").FirstErr(); err != nil {
		return err
	}
	admin := kadm.NewClient(producer)
	if _, err := admin.DeleteTopic(ctx, f.Topic); err != nil {
		return err
	}
	if err := common.Insist(func() error { _, err := admin.CreateTopic(ctx, 1, 1, nil, f.Topic); return err }); err != nil {
		return err
	}
	// franz-go never takes a new topic id by itself: it refuses to send until the topic is purged.
	producer.PurgeTopicsFromClient(f.Topic)
	for _, result := range send("after") {
		if result.Err != nil {
			return result.Err
		}
		common.Say(map[string]any{"event": "delivered", "offset": result.Record.Offset})
	}
	return nil
}

func consume(f common.Flags) error {
	consumer, err := client(f, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{f.Topic: {0: kgo.NewOffset().AtStart()}}))
	if err != nil {
		return err
	}
	defer consumer.Close()
	ctx, cancel := context.WithTimeout(context.Background(), common.Patience)
	defer cancel()
	for seen := 0; seen < f.Count && ctx.Err() == nil; {
		consumer.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			var headers []common.Header
			for _, h := range r.Headers {
				headers = append(headers, common.Header(h))
			}
			common.SayRecord(r.Offset, r.Timestamp, r.Key, r.Value, headers)
			seen++
		})
	}
	return nil
}

func member(stopped context.Context, f common.Flags) error {
	consumer, err := client(f,
		kgo.ConsumerGroup(f.Group), kgo.ConsumeTopics(f.Topic), kgo.Balancers(kgo.RangeBalancer()), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(f.Session),
		kgo.HeartbeatInterval(500*time.Millisecond), kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, assigned map[string][]int32) {
			partitions := append([]int32{}, assigned[f.Topic]...)
			slices.Sort(partitions)
			common.Say(map[string]any{"event": "assigned", "partitions": partitions})
		}))
	if err != nil {
		return err
	}
	defer consumer.CloseAllowingRebalance()
	for stopped.Err() == nil {
		records := consumer.PollFetches(stopped).Records()
		var done [][2]int64
		for _, r := range records {
			common.SayRead(r.Partition, r.Offset)
			done = append(done, [2]int64{int64(r.Partition), r.Offset})
		}
		// After an error a rebalance is in progress: another member reads these records again.
		if len(done) > 0 && consumer.CommitRecords(context.Background(), records...) == nil {
			common.SayCommitted(done)
		}
		consumer.AllowRebalance()
	}
	return nil
}
