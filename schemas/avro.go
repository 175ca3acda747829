package schemas

import (
	_ "embed"
	"fmt"

	"github.com/hamba/avro/v2"
)

// The schemas as files. Each is self-contained, so that a registry and a reader
// in any language need nothing else. Words such as `type` are strings and not
// enums on purpose: an enum's reader fails, or sees a default, where a string
// lets an old reader pass on a word that it does not know.
var (
	//go:embed avro/input.avsc
	inputSchema string
	//go:embed avro/resolved.avsc
	resolvedSchema string
	//go:embed avro/event.avsc
	eventSchema string
	//go:embed avro/fact.avsc
	factSchema string
	//go:embed avro/contact.avsc
	contactSchema string
	//go:embed avro/signal.avsc
	signalSchema string
	//go:embed avro/email-request.avsc
	emailRequestSchema string
	//go:embed avro/dead-letter.avsc
	deadLetterSchema string
	//go:embed avro/outbox.avsc
	outboxSchema string
)

// EmbeddedSchemas returns the value schema (Avro, as JSON) of every topic. The
// map is a fresh copy at each call.
func EmbeddedSchemas() map[Topic]string {
	return map[Topic]string{
		TopicIngest:        inputSchema,
		TopicResolved:      resolvedSchema,
		TopicEvents:        eventSchema,
		TopicLifecycle:     factSchema,
		TopicContacts:      contactSchema,
		TopicSignals:       signalSchema,
		TopicEmailRequests: emailRequestSchema,
		TopicDeadLetters:   deadLetterSchema,
		TopicOutbox:        outboxSchema,
	}
}

// Subject is the registry's name for the value schema of a topic:
// `<prefix><topic>-value`, Confluent's TopicNameStrategy.
func Subject(prefix string, topic Topic) string { return prefix + string(topic) + "-value" }

// layout is a parsed schema beside the program that checks bytes against it.
type layout struct {
	text   string
	schema *avro.RecordSchema
	shape  *shape
}

// parseLayout parses a record schema. A recursive one is refused: none of ours
// is, and resolving a foreign one would not end.
func parseLayout(text string) (*layout, error) {
	// A cache of its own: the library's default one is global, and two topics
	// (or two versions of one) define records of the same name.
	parsed, err := avro.ParseWithCache(text, "", &avro.SchemaCache{})
	if err != nil {
		return nil, fmt.Errorf("parse schema: %w", err)
	}
	record, ok := parsed.(*avro.RecordSchema)
	if !ok {
		return nil, fmt.Errorf("schema is a %s, not a record", parsed.Type())
	}
	s, err := shapeOf(record)
	if err != nil {
		return nil, err
	}
	return &layout{text: text, schema: record, shape: s}, nil
}

// layouts are the embedded schemas, parsed once. They are constants of the
// program, so one that does not parse is a bug found by every test.
var layouts = func() map[Topic]*layout {
	m := make(map[Topic]*layout)
	for topic, text := range EmbeddedSchemas() {
		l, err := parseLayout(text)
		if err != nil {
			panic(fmt.Sprintf("embedded schema of topic %s: %v", topic, err))
		}
		m[topic] = l
	}
	return m
}()
