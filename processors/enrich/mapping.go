package enrich

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/hogstream/hogstream/program"
)

// mapTime is how long the mapping of one answer may take, with the start of a worker.
const mapTime = 30 * time.Second

// Workers maps answers in worker processes, one for each enrichment.
func Workers(w *program.Workers) Mapper {
	return (&mappings{workers: w, open: map[string]*mapping{}}).run
}

type mappings struct {
	workers *program.Workers
	mu      sync.Mutex
	open    map[string]*mapping // by enrichment
}

type mapping struct {
	source string
	*program.Program
}

func (m *mappings) run(enrichmentID, source, answer string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), mapTime)
	defer cancel()
	results, err := m.of(enrichmentID, source).Run(ctx, [][]byte{[]byte(answer)})
	if err == nil {
		err = results[0].Err
	}
	switch {
	case err != nil:
		return "", said(err)
	case !results[0].Keep:
		return "", nil
	}
	return string(results[0].Shaped.Envelope), nil
}

// of is the program of an enrichment, opened when it is another than before.
func (m *mappings) of(enrichmentID, source string) *program.Program {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.open[enrichmentID]
	if p == nil || p.source != source {
		if p != nil {
			p.Close()
		}
		p = &mapping{source, m.workers.Open("enrichment "+enrichmentID, program.Source{Transform: source})}
		m.open[enrichmentID] = p
	}
	return p.Program
}

// said has errors speak of mappings and answers.
func said(err error) error {
	text := strings.TrimPrefix(err.Error(), "transform: ")
	if text == "payload is not JSON" {
		text = "the answer is no JSON"
	}
	return errors.New(text)
}
