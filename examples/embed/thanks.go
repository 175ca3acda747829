package main

import (
	"encoding/json"
	"fmt"

	"github.com/hogstream/hogstream/journeys"
)

// thanks is a journey whose steps are code: who has ordered for 40 or more is sent an event
// and then a mail. The code is run again from its beginning whenever its run goes on, and is
// told what its steps came to; so it does nothing but steps.
func thanks() journeys.Journey {
	j := journeys.Define("thanks", "1", func(r *journeys.Run) error {
		var order struct{ Total float64 }
		if err := json.Unmarshal([]byte(r.Trigger), &order); err != nil {
			return fmt.Errorf("read the order: %w", err)
		}
		if order.Total < 40 {
			return r.Exit("too small")
		}
		r.Set("a large order", map[string]bool{"large": true})
		r.Email("thanks", journeys.Email{Template: "thanks"})
		return nil
	})
	j.Trigger.Records = []journeys.Match{{Event: "order.completed"}}
	return j
}
