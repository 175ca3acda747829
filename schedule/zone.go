package schedule

import (
	"cmp"
	"fmt"
	"time"

	"github.com/hogstream/hogstream/predicate"
)

// Deployment is the source of the zone of a contact of whom nothing says where it is.
const Deployment = "deployment"

// ContactZone is the time zone of a contact.
type ContactZone struct {
	Zone   *time.Location
	Source string   // one of predicate.ZoneProperties, or Deployment
	Wrong  []string // properties that came first but name no zone, with what they say
}

// ZoneOf is the time zone of a contact as its properties say, by the rule that conditions
// follow ([predicate.ZoneProperties]), else that of the deployment; a nil one is UTC. It
// asks for the text of a property, which is empty when that is missing or no text. A run of a
// journey asks once and keeps the answer, so what it has planned stays when the contact
// travels.
func ZoneOf(text func(property string) string, deployment *time.Location) ContactZone {
	var out ContactZone
	for _, property := range predicate.ZoneProperties() {
		name := text(property)
		if name == "" {
			continue
		}
		zone, err := predicate.LoadZone(name)
		if err == nil {
			out.Zone, out.Source = zone, property
			return out
		}
		out.Wrong = append(out.Wrong, fmt.Sprintf("%s: %s", property, err))
	}
	out.Zone, out.Source = cmp.Or(deployment, time.UTC), Deployment
	return out
}
