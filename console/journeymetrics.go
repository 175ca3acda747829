package console

import (
	"math"
	"net/http"
	"time"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/web"
)

type journeyMetrics struct {
	JourneyID      string  `json:"journeyId"`
	Name           string  `json:"name"`
	Enrolled       int64   `json:"enrolled" doc:"Runs that began."`
	Completed      int64   `json:"completed"`
	Failed         int64   `json:"failed"`
	Exited         int64   `json:"exited"`
	Active         int64   `json:"active" doc:"Runs that live."`
	CompletionRate float64 `json:"completionRate" doc:"Of those that began; 0 when none did."`
	AvgSecs        *int64  `json:"avgDurationSecs" doc:"Of those that completed or exited."`
}

type journeyFunnel struct {
	JourneyID    string `json:"journeyId"`
	Enrolled     int64  `json:"enrolled"`
	EmailSent    int64  `json:"emailSent" doc:"Mails that its runs asked for."`
	EmailOpened  *int64 `json:"emailOpened" doc:"null: mail is not sent by this release, and so nothing is known."`
	EmailClicked *int64 `json:"emailClicked" doc:"As emailOpened."`
	Completed    int64  `json:"completed"`
	Failed       int64  `json:"failed"`
	Exited       int64  `json:"exited"`
}

type allJourneyMetrics struct {
	Journeys []journeyMetrics `json:"journeys"`
}

// journeyMetricRoutes are those of the figures of journeys, which are kept with the runs.
func (c *console) journeyMetricRoutes() []web.Route {
	return []web.Route{
		{
			Method: http.MethodGet, Path: "/v1/admin/metrics/journeys", Scopes: reading, Tag: "Journeys", Summary: "Figures of all journeys",
			Example: `/v1/admin/metrics/journeys`, Handle: web.Path(c.journeyMetrics),
		},
		{
			Method: http.MethodGet, Path: "/v1/admin/metrics/journeys/{id}", Scopes: reading, Tag: "Journeys", Summary: "Figures of a journey",
			Params: journeyParams, Example: `/v1/admin/metrics/journeys/cart`, Handle: web.Path(c.journeyFunnel), NotFound: noJourney,
		},
	}
}

// journeyMetrics is GET /metrics/journeys.
func (c *console) journeyMetrics(r *web.Request) (out allJourneyMetrics, err error) {
	set, err := definition.Current(r.Context(), c.DB)
	if err != nil {
		return out, err
	}
	counts, err := c.DB.JourneyCounts(r.Context(), "")
	if err != nil {
		return out, err
	}
	sums := map[string]*journeySums{}
	for i := range counts {
		sum := sums[counts[i].JourneyID]
		if sum == nil {
			sum = &journeySums{}
			sums[counts[i].JourneyID] = sum
		}
		sum.add(&counts[i])
	}
	all := set.AllJourneys()
	out.Journeys = make([]journeyMetrics, 0, len(all))
	for i := range all {
		j := &all[i]
		out.Journeys = append(out.Journeys, sums[j.ID].metrics(j.ID, j.Name))
	}
	return out, nil
}

// journeySums are the counters of a journey as a whole.
type journeySums struct {
	began, completed, failed, exited, retried, mailed int64
	took                                              time.Duration // of those that completed or exited
}

func (s *journeySums) add(n *storage.JourneyCount) {
	switch n.What {
	case storage.RunStarted:
		s.began += n.N
	case storage.RunRetried:
		s.retried += n.N
	case storage.RunFailed:
		s.failed += n.N
	case storage.RunCompleted:
		s.completed, s.took = s.completed+n.N, s.took+n.Took
	case storage.RunExited:
		s.exited, s.took = s.exited+n.N, s.took+n.Took
	case storage.RunMailed:
		s.mailed += n.N
	}
}

// metrics are the figures of a journey. A run that failed and was tried again has not failed.
func (s *journeySums) metrics(id, name string) journeyMetrics {
	out := journeyMetrics{JourneyID: id, Name: name}
	if s == nil {
		return out
	}
	out.Enrolled, out.Completed, out.Failed, out.Exited = s.began, s.completed, s.failed-s.retried, s.exited
	out.Active = s.began - s.completed - s.exited - out.Failed
	if s.began > 0 {
		out.CompletionRate = math.Round(float64(s.completed)/float64(s.began)*1e4) / 1e4
	}
	if ended := s.completed + s.exited; ended > 0 {
		seconds := int64(math.Round(s.took.Seconds() / float64(ended)))
		out.AvgSecs = &seconds
	}
	return out
}

// journeyFunnel is GET /metrics/journeys/{id}.
func (c *console) journeyFunnel(r *web.Request) (out journeyFunnel, err error) {
	j, err := c.journey(r.Context(), r.TextParam("id"))
	if err != nil {
		return out, err
	}
	counts, err := c.DB.JourneyCounts(r.Context(), j.ID)
	sums := &journeySums{}
	for i := range counts {
		if counts[i].Step == "" {
			sums.add(&counts[i])
		}
	}
	m := sums.metrics(j.ID, j.Name)
	return journeyFunnel{JourneyID: j.ID, Enrolled: m.Enrolled, EmailSent: sums.mailed, Completed: m.Completed, Failed: m.Failed, Exited: m.Exited}, err
}

type journeyVersion struct {
	JourneyID  string           `json:"journeyId"`
	Version    string           `json:"version"`
	InUse      bool             `json:"inUse"`
	Since      schemas.ISOTime  `json:"since" format:"date-time"`
	Superseded *schemas.ISOTime `json:"supersededAt" format:"date-time"`
	Live       int64            `json:"live" doc:"Runs."`
	Known      bool             `json:"known" doc:"Whether the process that answers can run it; runs of a version that no process can stand still."`
	Why        string           `json:"why,omitempty" doc:"Why it cannot."`
}

type journeyVersionPage struct {
	Versions []journeyVersion `json:"versions"`
}

// journeyVersionRoutes are those of versions.
func (c *console) journeyVersionRoutes() []web.Route {
	return []web.Route{{
		Method: http.MethodGet, Path: "/v1/admin/journey-versions", Scopes: reading, Tag: "Journeys", Summary: "List versions of journeys: those in use, and those that runs belong to",
		Example: `/v1/admin/journey-versions`, Handle: web.Path(c.journeyVersions),
	}}
}

// journeyVersions is GET /journey-versions.
func (c *console) journeyVersions(r *web.Request) (out journeyVersionPage, err error) {
	kept, err := c.DB.JourneyVersions(r.Context())
	if err != nil {
		return out, err
	}
	missing := c.Missing(kept)
	out.Versions = make([]journeyVersion, 0, len(kept))
	for i := range kept {
		v := &kept[i]
		shown := journeyVersion{
			JourneyID: v.JourneyID, Version: v.Version, InUse: v.Superseded.IsZero(), Since: schemas.ISOTime{Time: v.Since}, Superseded: isoOrNil(v.Superseded), Live: v.Live, Known: true,
		}
		if why := missing[v.JourneyID+"@"+v.Version]; why != nil {
			shown.Known, shown.Why = false, why.Error()
		}
		out.Versions = append(out.Versions, shown)
	}
	return out, nil
}
