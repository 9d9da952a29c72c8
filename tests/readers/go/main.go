// Command read prints every committed record of topics as one line of JSON: franz-go and hamba/avro.
//
// It reads each partition from its beginning to where its end was at the start.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/hamba/avro/v2"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
)

// How long reading everything may take.
const readMax = 90 * time.Second

func main() {
	log.SetFlags(0)
	brokers := flag.String("bootstrap", "", "host:port of a broker")
	registry := flag.String("registry", "", "base URL of the registry's Confluent API")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), readMax)
	defer cancel()
	if err := read(ctx, *brokers, *registry, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

func read(ctx context.Context, brokers, registry string, topics []string) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(brokers),
		kgo.ConsumeTopics(topics...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		// Not the default of this client, which shows the records of aborted transactions.
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// The last offset may be that of a transaction's end: only to see that it is reached.
		kgo.KeepControlRecords(),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListCommittedOffsets(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return err
	}
	type place struct {
		topic     string
		partition int32
	}
	unread := map[place]int64{}
	ends.Each(func(end kadm.ListedOffset) {
		if end.Offset > 0 {
			unread[place{end.Topic, end.Partition}] = end.Offset
		}
	})
	decoder, err := newDecoder(registry)
	if err != nil {
		return err
	}
	lines := json.NewEncoder(os.Stdout)
	lines.SetEscapeHTML(false)
	for len(unread) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("not everything was read, %v is left: %w", unread, err)
		}
		for records := fetches.RecordIter(); !records.Done(); {
			record := records.Next()
			if !record.Attrs.IsControl() {
				line, err := decoder.line(ctx, record)
				if err != nil {
					return fmt.Errorf("%s[%d]@%d: %w", record.Topic, record.Partition, record.Offset, err)
				}
				if err := lines.Encode(line); err != nil {
					return err
				}
			}
			at := place{record.Topic, record.Partition}
			if record.Offset+1 >= unread[at] {
				delete(unread, at)
			}
		}
	}
	return nil
}

// decoder decodes values with the schemas that they were written with.
type decoder struct {
	registry *sr.Client
	header   sr.ConfluentHeader
	schemas  map[int]avro.Schema
}

func newDecoder(url string) (*decoder, error) {
	registry, err := sr.NewClient(sr.URLs(url))
	return &decoder{registry: registry, schemas: map[int]avro.Schema{}}, err
}

func (d *decoder) line(ctx context.Context, record *kgo.Record) (map[string]any, error) {
	headers := map[string]string{}
	for _, header := range record.Headers {
		headers[header.Key] = string(header.Value)
	}
	value, err := d.value(ctx, record.Value)
	return map[string]any{
		"topic":     record.Topic,
		"partition": record.Partition,
		"offset":    record.Offset,
		"key":       string(record.Key),
		"headers":   headers,
		"value":     value,
	}, err
}

func (d *decoder) value(ctx context.Context, framed []byte) (any, error) {
	// A tombstone says that the key is gone. An empty value would be something else.
	if framed == nil {
		return nil, nil
	}
	id, datum, err := d.header.DecodeID(framed)
	if err != nil {
		return nil, err
	}
	schema, known := d.schemas[id]
	if !known {
		text, err := d.registry.SchemaByID(ctx, id)
		if err != nil {
			return nil, err
		}
		// A separate cache keeps apart types of the same name in different versions.
		schema, err = avro.ParseWithCache(text.Schema, "", &avro.SchemaCache{})
		if err != nil {
			return nil, err
		}
		d.schemas[id] = schema
	}
	reader := bytes.NewReader(datum)
	var value any
	if err := avro.NewDecoderForSchema(schema, reader).Decode(&value); err != nil {
		return nil, err
	}
	return plain(schema, value)
}

// plain makes JSON of what hamba/avro decodes a datum of any schema to.
func plain(schema avro.Schema, value any) (any, error) {
	switch schema := schema.(type) {
	case *avro.UnionSchema:
		if value == nil {
			return nil, nil
		}
		branch := schema.Types()[1]
		// A record in a union comes as a map from its name to the record.
		if record, is := branch.(*avro.RecordSchema); is {
			value = value.(map[string]any)[record.FullName()]
		}
		return plain(branch, value)
	case *avro.RecordSchema:
		fields := map[string]any{}
		for _, field := range schema.Fields() {
			var err error
			if fields[field.Name()], err = plain(field.Type(), value.(map[string]any)[field.Name()]); err != nil {
				return nil, err
			}
		}
		return fields, nil
	case *avro.ArraySchema:
		elements := []any{}
		for _, element := range value.([]any) {
			element, err := plain(schema.Items(), element)
			if err != nil {
				return nil, err
			}
			elements = append(elements, element)
		}
		return elements, nil
	}
	switch value := value.(type) {
	case time.Time:
		return value.UTC().Format("2006-01-02T15:04:05.000Z"), nil
	// A map has texts only.
	case string, bool, int, int64, map[string]any:
		return value, nil
	default:
		return nil, fmt.Errorf("no record of scimtail has a %T", value)
	}
}
