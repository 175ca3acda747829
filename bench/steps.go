package bench

import (
	"context"
	"errors"
	"fmt"
)

const (
	stepsRate    = 1000 // events a second
	beginsEvent  = "cart.left"
	beginsMail   = "cart-1"
	beginsSecond = "cart-2"
)

// beginning is a journey whose first step is a mail.
const beginning = `
id: cart
entryLimit: unlimited
live: restart
trigger: {event: ` + beginsEvent + `}
exitOn: [{event: order.completed}]
steps: [{email: {template: ` + beginsMail + `}}, {wait: 2d}, {email: {template: ` + beginsSecond + `}}]
`

// stepsBench measures how long after an event the first step of the journey that it begins is
// a record.
func stepsBench(ctx context.Context, cfg Config) (*section, error) {
	embedded, err := measureSteps(ctx, cfg, devSettings{Embedded: true})
	if err != nil {
		return nil, err
	}
	s := &section{
		title: "The first step of a journey",
		about: fmt.Sprintf("`hogstream dev` as in section \"Joining a bucket\", with 10 journeys beside its %d buckets, %s single events a second, each %dth of which begins a journey whose "+
			"first step is a mail. Latency from the acceptance of that event over HTTP until a reader of committed records has the mail's request of topic `email-requests`; the 99th and 50th of each round of %g s.",
			benchBuckets, thousands(stepsRate), joinEvery, joinsSeconds),
		figures: embedded.figures("the first step's record", "embedded", 0, 120),
	}
	return s, s.onKafka(ctx, func(settings devSettings) ([]figure, error) {
		kafka, err := measureSteps(ctx, cfg, settings)
		if err != nil {
			return nil, err
		}
		return kafka.figures("the first step's record", "Apache Kafka", 0, 0), nil
	})
}

func measureSteps(ctx context.Context, cfg Config, settings devSettings) (m joinLatency, err error) {
	l, err := startJourneys(ctx, cfg, settings, benchContacts)
	defer func() { err = errors.Join(err, l.close()) }()
	if err != nil {
		return m, err
	}
	return l.latency(ctx)
}

// startJourneys starts a live instance with 10 journeys and these, whose live events begin one
// of the ten. close must be called, also after an error.
func startJourneys(ctx context.Context, cfg Config, settings devSettings, contacts int, others ...string) (*liveInstance, error) {
	list, err := definedJourneys()
	if err != nil {
		return &liveInstance{surroundings: &surroundings{}}, err
	}
	more, err := readJourneys(append(others, beginning)...)
	if err != nil {
		return &liveInstance{surroundings: &surroundings{}}, err
	}
	seed := func(ctx context.Context, env *surroundings) error { return seedContacts(ctx, env, contacts) }
	l, err := startLive(ctx, cfg, settings, seed, append(list[:len(list)-1], more...)...)
	l.rate, l.joins, l.follows = stepsRate, beginsEvent, [2]string{mailOf, beginsMail}
	return l, err
}
