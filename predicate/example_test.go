package predicate_test

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/predicate"
)

// A condition is built, or read from a file; both are one form.
func Example() {
	built := predicate.All(
		predicate.Event("order.completed").
			Where(predicate.Prop("amount").Gt(100)).
			Within(predicate.Days(30)).
			AtLeast(3),
		predicate.Not(predicate.Prop("country").In("DE", "AT", "CH")),
	)
	read, err := predicate.ParseYAML("vip.yaml", []byte(`
type: composite
operator: and
conditions:
  - type: event
    eventName: order.completed
    where: {type: property, property: amount, operator: gt, value: 100}
    within: 30d
    check: count
    operator: gte
    value: 3
  - type: not
    condition: {type: property, property: country, operator: in, value: [DE, AT, CH]}
`))
	fmt.Println(err, built.Equal(read))
	// Output: <nil> true
}

// A set is told what happens, and says which conditions to look at again, and when.
func ExampleCompile() {
	set, err := predicate.Compile([]predicate.Named{
		{ID: "active", Bucket: true, Condition: predicate.Event("app.opened").Within(predicate.Days(7)).Exists()},
		{ID: "buyers", Bucket: true, Condition: predicate.Event("order.completed").Exists()},
	}, predicate.Options{Limits: predicate.DefaultLimits()})
	if err != nil {
		fmt.Println(err)
		return
	}
	var contact predicate.State
	monday := time.Date(2026, 6, 1, 9, 0, 0, 0, time.UTC)
	opened := predicate.Record{ID: uuid.New(), Name: "app.opened", At: monday, Properties: "{}"}
	for _, i := range set.Apply(&contact, &opened, nil) {
		verdict := set.Evaluate(i, &contact, nil, monday)
		fmt.Println(set.ID(i), verdict.Holds, "until", verdict.Next.Format(time.RFC3339Nano))
	}
	// Output: active true until 2026-06-08T09:00:00.000001Z
}

func ExampleParseYAML() {
	_, err := predicate.ParseYAML("quiet.yaml", []byte(`type: event
eventName: app.opened
check: not_exist
within: {dys: 14}
`))
	fmt.Println(err)
	// Output:
	// quiet.yaml:3:8: check: "not_exist" is not known: did you mean "not_exists"?
	// quiet.yaml:4:10: within.dys: "dys" is not known: did you mean "days"?
}

func ExampleEventBuilder_Then() {
	abandoned := predicate.Event("cart.added").Then(predicate.Event("order.completed")).Newest().NotWithin(predicate.Hours(2))
	fmt.Println(abandoned.Canonical())
	// Output: {"check":"not_followed","first":{"eventName":"cart.added"},"occurrence":"last","then":{"eventName":"order.completed"},"type":"sequence","within":{"hours":2}}
}

func ExampleComparison_Zone() {
	ending := predicate.Prop("trialEndsAt").Zone("Europe/Berlin").Between(predicate.Today(0), predicate.Today(3))
	fmt.Println(ending.Canonical())
	// Output: {"operator":"between","property":"trialEndsAt","type":"property","value":["today","today+3d"],"zone":"Europe/Berlin"}
}
