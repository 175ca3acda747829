package console

import (
	"math"
	"net/http"
	"time"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/web"
)

type bucketMetrics struct {
	BucketID     string `json:"bucketId"`
	Name         string `json:"name"`
	Size         int64  `json:"size" doc:"members"`
	Entered      int64  `json:"entered"`
	Left         int64  `json:"left"`
	AvgDwellSecs *int64 `json:"avgDwellSecs" doc:"Of all joins, of those who are members until now."`
}

type bucketPoint struct {
	Date    string `json:"date" doc:"The first day of the period, in UTC."`
	Entered int64  `json:"entered"`
	Left    int64  `json:"left"`
}

// What requests hold, and the answers.
type (
	periodQuery struct {
		Period string    `json:"period" enum:"day,week,month" default:"day" doc:"A week begins on Monday."`
		From   time.Time `json:"from" doc:"its day is the first one; 30 days before to when left out"`
		To     time.Time `json:"to" doc:"its day is the last one; today when left out"`
	}
	allBucketMetrics struct {
		Buckets []bucketMetrics `json:"buckets"`
	}
	bucketSeries struct {
		BucketID string        `json:"bucketId"`
		Size     int64         `json:"size"`
		Points   []bucketPoint `json:"points" doc:"Periods in which somebody entered or left."`
	}
)

// bucketMetricRoutes are those of the figures of buckets, which are kept with the members.
func (c *console) bucketMetricRoutes() []web.Route {
	return []web.Route{
		{
			Method: http.MethodGet, Path: "/v1/admin/metrics/buckets", Scopes: reading, Tag: "Buckets", Summary: "Figures of all buckets",
			Example: `/v1/admin/metrics/buckets`, Handle: web.Path(c.bucketMetrics),
		},
		{
			Method: http.MethodGet, Path: "/v1/admin/metrics/buckets/{id}", Scopes: reading, Tag: "Buckets", Summary: "How many entered and left a bucket, by day, week or month",
			Params: bucketParams, Example: `/v1/admin/metrics/buckets/cart-abandoned?period=week&from=2026-01-01`, Handle: web.Query(c.bucketSeries), NotFound: noBucket,
		},
	}
}

// bucketMetrics is GET /metrics/buckets.
func (c *console) bucketMetrics(r *web.Request) (out allBucketMetrics, err error) {
	u, err := c.definitions(r.Context())
	if err != nil {
		return out, err
	}
	counts, err := c.DB.BucketCounts(r.Context())
	out.Buckets = make([]bucketMetrics, 0, len(u.Buckets))
	for i := range u.Buckets {
		out.Buckets = append(out.Buckets, metricsOf(u.Buckets[i].ID, u.Buckets[i].Name, counts[u.Buckets[i].ID]))
	}
	return out, err
}

func metricsOf(id, name string, n storage.BucketCounts) bucketMetrics {
	out := bucketMetrics{BucketID: id, Name: name, Size: n.Active, Entered: n.Entered, Left: n.Left}
	if n.Entered > 0 {
		seconds := int64(math.Round(n.Dwell.Seconds()))
		out.AvgDwellSecs = &seconds
	}
	return out
}

// usualSeries is how far back figures go that do not say.
const usualSeries = 30 * 24 * time.Hour

// bucketSeries is GET /metrics/buckets/{id}.
func (c *console) bucketSeries(r *web.Request, q *periodQuery) (out bucketSeries, err error) {
	_, b, err := c.bucket(r.Context(), r.TextParam("id"))
	if err != nil {
		return out, err
	}
	if q.To.IsZero() {
		q.To = time.Now()
	}
	if q.From.IsZero() {
		q.From = q.To.Add(-usualSeries)
	}
	counts, err := c.DB.BucketCountsOf(r.Context(), b.ID)
	if err != nil {
		return out, err
	}
	points, err := c.DB.BucketPoints(r.Context(), b.ID, q.Period, q.From, q.To)
	out = bucketSeries{BucketID: b.ID, Size: counts.Active, Points: make([]bucketPoint, 0, len(points))}
	for _, p := range points {
		out.Points = append(out.Points, bucketPoint{p.Date.Format(time.DateOnly), p.Entered, p.Left})
	}
	return out, err
}
