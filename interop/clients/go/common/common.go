// Package common is shared by the Go clients: the records, their digest, the command line, and the events. The other clients
// have the same.
package common

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Patience is how long a client waits for its records and for its last send.
const Patience = 30 * time.Second

// free is how long the name of a deleted topic may stay taken. In Apache Kafka it becomes free only after a moment.
const free = 20 * time.Second

// Flags is the command line.
type Flags struct {
	Bootstrap, Topic, Codec, Mode, Group string
	Count                                int
	Session                              time.Duration
}

// Header is one header of a record.
type Header struct {
	Key   string
	Value []byte
}

// Client is what each client does.
type Client struct {
	Produce, Consume, Recreate func(Flags) error
	Member                     func(context.Context, Flags) error
}

// Run runs the action of the command line.
func Run(client Client) {
	set := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	var f Flags
	set.StringVar(&f.Bootstrap, "bootstrap", "", "")
	set.StringVar(&f.Topic, "topic", "", "")
	set.StringVar(&f.Codec, "codec", "none", "")
	set.StringVar(&f.Mode, "mode", "idempotent", "")
	set.StringVar(&f.Group, "group", "", "")
	set.IntVar(&f.Count, "count", 0, "")
	session := set.Int("session", 6000, "session time-out in milliseconds")
	set.Parse(os.Args[2:])
	f.Session = time.Duration(*session) * time.Millisecond
	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	actions := map[string]func() error{
		"produce":  func() error { return client.Produce(f) },
		"consume":  func() error { return client.Consume(f) },
		"recreate": func() error { return client.Recreate(f) },
		"member":   func() error { return client.Member(stopped, f) },
	}
	if err := actions[os.Args[1]](); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Record makes record i of count.
func Record(i, count int) (key, value []byte, headers []Header, timestamp time.Time) {
	if i%5 != 0 {
		key = fmt.Appendf(nil, "key-%d", i)
	}
	if i%7 != 3 {
		value = bytes.Repeat(fmt.Appendf(nil, "value-%d-", i), 1+i%50)
	}
	if i == count-1 {
		value = make([]byte, 1_000_000)
		for b := range value {
			value[b] = byte(b * 31 % 251)
		}
	}
	if i%3 == 0 {
		headers = []Header{{"h1", []byte("a")}, {"h1", []byte("b")}, {"empty", []byte{}}, {"nul", nil}}
	}
	return key, value, headers, time.UnixMilli(1_700_000_000_000 + int64(i)*1000)
}

func digest(data []byte) any {
	if data == nil {
		return nil
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])[:16]
}

// Say prints one event as a line of JSON.
func Say(event map[string]any) {
	line, err := json.Marshal(event)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

// SayRecord prints a record in the form that all clients print.
func SayRecord(offset int64, timestamp time.Time, key, value []byte, headers []Header) {
	shown := [][]any{}
	for _, h := range headers {
		shown = append(shown, []any{h.Key, digest(h.Value)})
	}
	Say(map[string]any{"event": "record", "offset": offset, "timestamp": timestamp.UnixMilli(), "key": digest(key),
		"value": digest(value), "headers": shown})
}

// SayRead prints that a member has read a record.
func SayRead(partition int32, offset int64) {
	Say(map[string]any{"event": "record", "partition": partition, "offset": offset})
}

// SayCommitted prints that a member has committed records, each a partition and an offset.
func SayCommitted(records [][2]int64) {
	Say(map[string]any{"event": "committed", "records": records})
}

// Insist calls create until it succeeds or the name of a deleted topic must be free.
func Insist(create func() error) error {
	for end := time.Now().Add(free); ; time.Sleep(200 * time.Millisecond) {
		if err := create(); err == nil || time.Now().After(end) {
			return err
		}
	}
}
