package predicate_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	p "github.com/hogstream/hogstream/predicate"
)

// benchSet is n conditions, of which five look at order.completed, three within windows,
// and the others at their own events and properties.
func benchSet(t testing.TB, n int) *p.Set {
	order := p.Event("order.completed")
	list := []p.Condition{
		order.Within(p.Days(30)).AtLeast(3),
		p.All(order.Exists(), order.Within(p.Days(14)).NotExists()),
		order.Where(p.Prop("amount").Gt(100)).Within(p.Days(90)).AtLeast(2),
		p.All(p.Prop("plan").Eq("pro"), order.AtLeast(10)),
		p.Any(order.Total("amount").Gte(1000), p.Not(p.Prop("country").In("DE", "AT"))),
	}
	for i := len(list); i < n; i++ {
		list = append(list, p.Any(
			p.Event(fmt.Sprintf("event.%d", i)).Within(p.Days(7)).AtLeast(2),
			p.Prop(fmt.Sprintf("property_%d", i)).Gt(5),
		))
	}
	named := make([]p.Named, n)
	for i, c := range list {
		named[i] = p.Named{ID: fmt.Sprintf("bucket-%d", i), Bucket: true, Condition: c}
	}
	set, err := p.Compile(named, p.Options{Limits: p.DefaultLimits()})
	require.NoError(t, err)
	return set
}

// contactWithHistory has happened a lot to: 30 orders and 15 other events.
func contactWithHistory(set *p.Set, from time.Time) *p.State {
	s := &p.State{}
	contact := p.Record{Contact: `{"plan":"pro","country":"DE","name":"Ada","property_7":3,"property_20":9}`}
	set.Apply(s, &contact, nil)
	for i := range 45 {
		name := "order.completed"
		if i%3 == 0 {
			name = fmt.Sprintf("event.%d", 5+i/3)
		}
		r := p.Record{ID: uuid.New(), Name: name, At: from.Add(time.Duration(i) * time.Hour), Properties: `{"amount":12.5}`}
		set.Apply(s, &r, nil)
	}
	return s
}

// An event is applied and the conditions that look at it are evaluated, as a processor
// does. ns/op and allocs/op are those of one event.
func BenchmarkEvent(b *testing.B) {
	for _, n := range []int{25, 1000} {
		b.Run(fmt.Sprintf("conditions=%d", n), func(b *testing.B) {
			set := benchSet(b, n)
			now := aNow
			s := contactWithHistory(set, now.Add(-60*time.Hour))
			r := p.Record{Name: "order.completed", Properties: `{"orderId":"o-1","amount":129.5,"currency":"EUR","items":[{"sku":"a","n":1}]}`, HasUserID: true}
			touched := make([]int, 0, 16)
			evaluated := 0
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				now = now.Add(time.Minute)
				r.ID[0], r.ID[1], r.ID[2], r.ID[3] = byte(i), byte(i>>8), byte(i>>16), byte(i>>24)
				r.At = now
				touched = set.Apply(s, &r, touched[:0])
				for _, c := range touched {
					set.Evaluate(c, s, nil, now)
					evaluated++
				}
			}
			b.ReportMetric(float64(evaluated)/float64(b.N), "evaluated/op")
		})
	}
}

// A set is compiled when its definitions change.
func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		benchSet(b, 1000)
	}
}

// A contact is updated, and one property that a condition looks at changes each time.
func BenchmarkContact(b *testing.B) {
	for _, n := range []int{25, 1000} {
		b.Run(fmt.Sprintf("conditions=%d", n), func(b *testing.B) {
			set := benchSet(b, n)
			s := contactWithHistory(set, aNow)
			records := []p.Record{{Contact: contactDocument("pro")}, {Contact: contactDocument("team")}}
			touched := make([]int, 0, 16)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				touched = set.Apply(s, &records[i%2], touched[:0])
				for _, c := range touched {
					set.Evaluate(c, s, nil, aNow)
				}
			}
		})
	}
}

func contactDocument(plan string) string {
	doc := `{"plan":"` + plan + `","country":"DE"`
	for i := range 30 {
		doc += fmt.Sprintf(`,"property_%d":"some text of a property"`, 2*i)
	}
	return doc + "}"
}

// However many conditions there are, an event costs what looks at it.
func TestAnEventIsEvaluatedByThoseThatLookAtItAndAllocatesLittle(t *testing.T) {
	for _, n := range []int{25, 1000} {
		set := benchSet(t, n)
		s := contactWithHistory(set, aNow)
		r := p.Record{Name: "order.completed", At: aNow.Add(p.Days(10)), Properties: `{"amount":129.5}`}
		touched := make([]int, 0, 16)
		allocs := testing.AllocsPerRun(100, func() {
			r.ID[0]++
			r.At = r.At.Add(time.Second)
			touched = set.Apply(s, &r, touched[:0])
			for _, c := range touched {
				set.Evaluate(c, s, nil, r.At)
			}
		})
		require.Len(t, touched, 5)
		require.LessOrEqual(t, allocs, 2.0)
	}
}

// What a processor does beside: it reads the state of a contact and writes it back.
func BenchmarkState(b *testing.B) {
	set := benchSet(b, 25)
	s := contactWithHistory(set, aNow)
	data := encoded(b, s)
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		out := make([]byte, 0, 4096)
		for b.Loop() {
			out, _ = s.AppendBinary(out[:0])
		}
		b.ReportMetric(float64(len(out)), "bytes")
	})
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var into p.State
			if err := into.UnmarshalBinary(data); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// What a person asks for one contact and one condition.
func BenchmarkExplain(b *testing.B) {
	set := benchSet(b, 25)
	s := contactWithHistory(set, aNow)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		set.Explain(i%5, s, nil, aNow)
	}
}
