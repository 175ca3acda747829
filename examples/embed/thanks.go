package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/hogstream/hogstream/journeys"
)

// thanks is a journey whose steps are code: who has ordered for 40 or more is given a voucher
// and then sent a mail. The code is run again from its beginning whenever its run goes on, and
// is told what its steps came to; so it does nothing but steps. Work of its own is in one,
// too, Do: the function is called outside, until it has returned once.
func thanks(shop *vouchers) journeys.Journey {
	j := journeys.Define("thanks", "1", func(r *journeys.Run) error {
		var order struct{ Total float64 }
		if err := json.Unmarshal([]byte(r.Trigger), &order); err != nil {
			return fmt.Errorf("read the order: %w", err)
		}
		if order.Total < 40 {
			return r.Exit("too small")
		}
		voucher, err := journeys.Do(r, "voucher", journeys.Job{}, func(_ context.Context, a journeys.Attempt) (string, error) {
			return shop.issue(a.Key), nil
		})
		if err != nil {
			return err
		}
		r.Set("a large order", map[string]any{"large": true, "voucher": voucher})
		r.Email("thanks", journeys.Email{Template: "thanks", Props: new(journeys.Literal(map[string]any{"voucher": voucher}))})
		return nil
	})
	j.Trigger.Records = []journeys.Match{{Event: "order.completed"}}
	return j
}

// vouchers stand for a service that takes an idempotency key: asked again under one, it
// answers as before.
type vouchers struct {
	mu     sync.Mutex
	issued map[string]string
}

func (v *vouchers) issue(key string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.issued == nil {
		v.issued = map[string]string{}
	}
	if _, before := v.issued[key]; !before {
		v.issued[key] = fmt.Sprintf("THANKS-%d", len(v.issued)+1)
	}
	return v.issued[key]
}
