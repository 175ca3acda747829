package bench

import (
	"context"
	"errors"
	"fmt"
)

const (
	joinsSeconds = 8.0
	joinsRounds  = 5
)

// joinsBench measures how long after an event who joins a bucket because of it is told to
// have joined.
func joinsBench(ctx context.Context, cfg Config) (*section, error) {
	embedded, err := measureJoins(ctx, cfg, devSettings{Embedded: true})
	if err != nil {
		return nil, err
	}
	s := &section{
		title: "Joining a bucket",
		about: fmt.Sprintf("`hogstream dev` in a process of its own, with a Postgres of %s contacts and fsync on, and the %d buckets of section \"Buckets\", of which one is "+
			"joined by who looks at something expensive: each %dth of %s single events a second of one KiB over %d connections. Latency from the acceptance of the event over "+
			"HTTP until a reader of committed records has `bucket.entered` of topic `lifecycle`; the 99th and 50th of each round of %g s. The same load runs beforehand until the median no longer falls.",
			thousands(benchContacts), benchBuckets, joinEvery, thousands(liveRate), liveConnections, joinsSeconds),
		figures: embedded.figures("`bucket.entered`", "embedded", 30, 100),
	}
	return s, s.onKafka(ctx, func(settings devSettings) ([]figure, error) {
		kafka, err := measureJoins(ctx, cfg, settings)
		if err != nil {
			return nil, err
		}
		return kafka.figures("`bucket.entered`", "Apache Kafka", 0, 500), nil
	})
}

// joinLatency is what was measured on one instance.
type joinLatency struct {
	rounds []joins
	cost   costs   // of the instance and its Postgres, an event
	stages []stage // of the last round
}

func measureJoins(ctx context.Context, cfg Config, settings devSettings) (m joinLatency, err error) {
	l, err := startLive(ctx, cfg, settings, func(ctx context.Context, env *surroundings) error { return seedContacts(ctx, env, benchContacts) })
	defer func() { err = errors.Join(err, l.close()) }()
	if err != nil {
		return m, err
	}
	return l.latency(ctx)
}

// latency measures rounds of live events, after those that warm up.
func (l *liveInstance) latency(ctx context.Context) (m joinLatency, err error) {
	if err := l.warm(ctx, warmAtMost/3); err != nil {
		return m, err
	}
	for i := range l.cfg.rounds(joinsRounds) {
		before := l.usedByInstance()
		all, err := l.measure(ctx, joinsSeconds*l.cfg.Scale)
		if err != nil {
			return m, err
		}
		l.cfg.say("  round %d: p50 %.1f ms, p99 %.1f ms of %d", i+1, millis(all.seen, 0.5), millis(all.seen, 0.99), len(all.seen))
		m.rounds = append(m.rounds, all)
		m.cost.add(before, l.usedByInstance(), int(joinsSeconds*l.cfg.Scale*float64(l.rate)))
	}
	m.stages, err = stages(ctx, l.kafka, m.rounds[len(m.rounds)-1].began)
	return m, err
}

func (m *joinLatency) figures(what, where string, p50, p99 float64) []figure {
	var half, most, appendedHalf, appendedMost []float64
	for _, r := range m.rounds {
		half, most = append(half, millis(r.seen, 0.5)), append(most, millis(r.seen, 0.99))
		appendedHalf, appendedMost = append(appendedHalf, millis(r.appended, 0.5)), append(appendedMost, millis(r.appended, 0.99))
	}
	figures := []figure{
		costFigure("accepted to "+what+", "+where+", p50", "ms", half, p50),
		costFigure("accepted to "+what+", "+where+", p99", "ms", most, p99),
		costFigure("accepted to its append, "+where+", p50", "ms", appendedHalf, 0),
		costFigure("accepted to its append, "+where+", p99", "ms", appendedMost, 0),
	}
	figures = append(figures,
		costFigure("CPU of the process, an event, "+where, "µs", m.cost.process, 0),
		costFigure("CPU of Postgres, an event, "+where, "µs", m.cost.postgres, 0))
	for _, s := range m.stages {
		figures = append(figures,
			costFigure(fmt.Sprintf("accepted to appended to `%s`, %s, p50", s.topic, where), "ms", []float64{float64(s.p50.Microseconds()) / 1000}, 0),
			costFigure(fmt.Sprintf("accepted to appended to `%s`, %s, p99", s.topic, where), "ms", []float64{float64(s.p99.Microseconds()) / 1000}, 0))
	}
	return figures
}
