package intake

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

var received = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func parser() *Parser {
	n := 0
	return &Parser{Limits: Limits{Events: 500, EventBytes: 32 << 10}, Token: func(v string) string { return fmt.Sprintf("tok_%d", len(v)) },
		NewID: func() string { n++; return fmt.Sprintf("made-%d", n) }}
}

func one(t *testing.T, body string) Event {
	t.Helper()
	b, err := parser().Parse([]byte(body), Origin{Received: received, IP: "192.0.2.7", UserAgent: "Test/1"})
	if err != nil {
		t.Fatalf("parse: %v", err)
	}
	if len(b.Events) != 1 {
		t.Fatalf("%d events, want 1", len(b.Events))
	}
	return b.Events[0]
}

func TestGoodEvent(t *testing.T) {
	e := one(t, ` {"event_id":"e1","session_id":"s1","action":"add_to_cart","customer_number":103,"anonymous_id":"browser-1",
		"product_code":"S18\u005f1749","quantity":"2","page_url":"https://me:secret@shop.example/p/1?email=a@b.c#x","ip":"::ffff:192.0.2.1",
		"event_time":1777636700,"attributes":{"colour":"red","n":1.5,"b":true,"nothing":null},"rating":5,"email":"a@b.example"} `)
	if len(e.Faults) > 0 {
		t.Fatalf("faults: %+v", e.Faults)
	}
	a := e.Activity
	if a.EventID != "e1" || *a.CustomerNumber != "103" || *a.ProductCode != "S18_1749" || *a.Quantity != 2 || a.CustomerVerified {
		t.Errorf("read as %+v", a)
	}
	if *a.PageURL != "https://shop.example/p/1" {
		t.Errorf("page is %q", *a.PageURL)
	}
	if *a.AnonymousID != "tok_9" || *a.IP != "tok_9" || *a.UserAgent != "Test/1" {
		t.Errorf("tokens: anonymous %q, ip %q, agent %q", *a.AnonymousID, *a.IP, *a.UserAgent)
	}
	if !a.EventTime.Equal(time.Unix(1777636700, 0)) {
		t.Errorf("time is %v", a.EventTime)
	}
	want := map[string]string{"colour": "red", "n": "1.5", "b": "true", "rating": "5", "email": "tok_11"}
	if fmt.Sprint(a.Attributes) != fmt.Sprint(want) {
		t.Errorf("attributes %v, want %v", a.Attributes, want)
	}
}

func TestAddressesInIdsBecomeTokens(t *testing.T) {
	e := one(t, `{"session_id":"s","action":"search","customer_number":"me@shop.example","q":"mail me@shop.example"}`)
	if len(e.Faults) > 0 || *e.Activity.CustomerNumber != "tok_15" || e.Activity.Attributes["q"] != "tok_20" {
		t.Errorf("%+v %+v", e.Activity, e.Faults)
	}
}

func TestFaultsNameTheFieldAndNeverTheValue(t *testing.T) {
	const secret = "Zq9secret"
	base := `"session_id":"s","anonymous_id":"a","action":"view","product_code":"p"`
	cases := []struct{ name, body, field, code string }{
		{"no session", `{"anonymous_id":"a","action":"search"}`, "session_id", CodeMissing},
		{"empty session", `{"session_id":"  ","anonymous_id":"a","action":"search"}`, "session_id", CodeMissing},
		{"null session", `{"session_id":null,"anonymous_id":"a","action":"search"}`, "session_id", CodeMissing},
		{"no product", `{"session_id":"s","anonymous_id":"a","action":"rate"}`, "product_code", CodeMissing},
		{"no action", `{"session_id":"s","anonymous_id":"a"}`, "action", CodeMissing},
		{"action", `{"session_id":"s","anonymous_id":"a","action":"` + secret + `"}`, "action", CodeUnknown},
		{"action type", `{"session_id":"s","anonymous_id":"a","action":7}`, "action", CodeType},
		{"quantity text", `{` + base + `,"quantity":"` + secret + `"}`, "quantity", CodeType},
		{"quantity zero", `{` + base + `,"quantity":0}`, "quantity", CodeRange},
		{"quantity fraction", `{` + base + `,"quantity":1.5}`, "quantity", CodeType},
		{"quantity huge", `{` + base + `,"quantity":"9999999999999999999"}`, "quantity", CodeRange},
		{"time", `{` + base + `,"event_time":"` + secret + `"}`, "event_time", CodeTime},
		{"time object", `{` + base + `,"event_time":{}}`, "event_time", CodeTime},
		{"sent_at", `{` + base + `,"sent_at":"` + secret + `"}`, "sent_at", CodeTime},
		{"ip", `{` + base + `,"ip":"` + secret + `"}`, "ip", CodeAddress},
		{"unknown object", `{` + base + `,"` + secret + `":{"a":1}}`, "attributes", CodeNotScalar},
		{"nested attribute", `{` + base + `,"attributes":{"` + secret + `":[1]}}`, "attributes", CodeNotScalar},
		{"attributes type", `{` + base + `,"attributes":"` + secret + `"}`, "attributes", CodeType},
		{"long attribute", `{` + base + `,"x":"` + strings.Repeat(secret, 200) + `"}`, "attributes", CodeTooLong},
		{"long id", `{` + base + `,"event_id":"` + strings.Repeat(secret, 20) + `"}`, "event_id", CodeTooLong},
		{"control characters", `{` + base + `,"event_id":"a\u0000` + secret + `"}`, "event_id", CodeCharacters},
		{"twice", `{` + base + `,"session_id":"` + secret + `"}`, "session_id", CodeDuplicate},
		{"reserved", `{` + base + `,"customer_verified":true}`, "customer_verified", CodeReserved},
		{"large", `{` + base + `,"x":"` + strings.Repeat("x", 33<<10) + `"}`, "", CodeTooLarge},
		{"customer object", `{"session_id":"s","action":"search","customer_number":{"a":"` + secret + `"}}`, "customer_number", CodeType},
		{"no object", `["` + secret + `"]`, "", CodeType},
		{"deep", `{` + base + `,"x":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`, "attributes", CodeNotScalar},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			e := one(t, c.body)
			if len(e.Faults) != 1 || e.Faults[0].Field != c.field || e.Faults[0].Code != c.code {
				t.Fatalf("faults %+v, want one of %s %s", e.Faults, c.field, c.code)
			}
			if f := e.Faults[0]; f.Reason == "" || f.Hint == "" || strings.Contains(fmt.Sprint(f), secret) {
				t.Errorf("fault %+v: reason and hint must be there and must not repeat input", f)
			}
		})
	}
}

func TestTimes(t *testing.T) {
	at := func(d time.Duration) time.Time { return received.Add(d) }
	cases := []struct {
		name, fields string
		want         time.Time
	}{
		{"missing", ``, received},
		{"RFC 3339", `,"event_time":"2026-05-01T13:59:00.123456789+02:00"`, at(-time.Minute + 123456*time.Microsecond)},
		{"seconds", `,"event_time":1777636740`, at(-time.Minute)},
		{"seconds with fraction", `,"event_time":1777636740.5`, at(-time.Minute + 500*time.Millisecond)},
		{"milliseconds in a string", `,"event_time":"1777636740000"`, at(-time.Minute)},
		{"microseconds", `,"event_time":1777636740000001`, at(-time.Minute + time.Microsecond)},
		{"the client's clock is an hour late", `,"event_time":"2026-05-01T10:59:50Z","sent_at":"2026-05-01T11:00:00Z"`, at(-10 * time.Second)},
		{"the client's clock is a year early", `,"event_time":"2027-05-01T11:59:50Z","sent_at":"2027-05-01T12:00:00Z"`, at(-10 * time.Second)},
		{"only sent_at", `,"sent_at":"2027-05-01T12:00:00Z"`, received},
		{"too old", `,"event_time":"2026-04-01T00:00:00Z"`, received},
		{"just old enough", `,"event_time":"2026-04-24T12:00:00Z"`, at(-7 * 24 * time.Hour)},
		{"in the future", `,"event_time":"2026-05-01T12:05:01Z"`, received},
		{"a little in the future", `,"event_time":"2026-05-01T12:05:00Z"`, at(5 * time.Minute)},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			e := one(t, `{"session_id":"s","anonymous_id":"a","action":"search"`+c.fields+`}`)
			if len(e.Faults) > 0 || !e.Activity.EventTime.Equal(c.want) {
				t.Errorf("got %v %+v, want %v", e.Activity.EventTime, e.Faults, c.want)
			}
		})
	}
}

func TestShapes(t *testing.T) {
	event := `{"session_id":"s","anonymous_id":"a","action":"view"}`
	cases := []struct{ name, body, location string }{
		{"one", event, "body.product_code"},
		{"array", ` [ ` + event + ` ] `, "body[0].product_code"},
		{"wrapped", `{"sent_at":1777636740,"events":[` + event + `,` + event + `]}`, "body.events[0].product_code"},
	}
	for _, c := range cases {
		b, err := parser().Parse([]byte(c.body), Origin{Received: received})
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := b.Location(0, b.Events[0].Faults[0].Field); got != c.location {
			t.Errorf("%s: location %q, want %q", c.name, got, c.location)
		}
	}
	for _, body := range []string{`7`, `"x"`, `null`, `[]`, `{"events":[]}`, `{"events":7}`, `{"events":[` + event + `],"other":1}`, `{"events":[],"events":[]}`} {
		var shape *ShapeError
		if _, err := parser().Parse([]byte(body), Origin{Received: received}); !errors.As(err, &shape) {
			t.Errorf("%s: error %v, want a shape error", body, err)
		}
	}
	for _, body := range []string{``, ` `, `{`, `{"a":}`, `{}{}`, "{\"a\":\"\xff\"}", strings.Repeat("[", 20000)} {
		if _, err := parser().Parse([]byte(body), Origin{Received: received}); !errors.Is(err, ErrSyntax) {
			t.Errorf("%.20q: error %v, want ErrSyntax", body, err)
		}
	}
	many := `[` + strings.Repeat(event+`,`, 500) + event + `]`
	if _, err := parser().Parse([]byte(many), Origin{Received: received}); !errors.Is(err, ErrTooMany) {
		t.Errorf("501 events: error %v, want ErrTooMany", err)
	}
}

// FuzzParse holds whatever comes: no panic, and an event is either whole or has faults.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`{}`, `[{}]`, `{"events":[{}]}`, `{"session_id":"s","anonymous_id":"a","action":"search","event_time":1e10}`,
		`{"a":"\ud800","b":"\"\\"}`, `[1,"x",null,[[]],{"a":{"b":[]}}]`, `{"sent_at":-0.0,"events":[{"event_time":"1e300"}]}`,
		`{"session_id":"s","page_url":"//@/@?","action":"view","quantity":-9223372036854775808}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p := parser()
		b, err := p.Parse(body, Origin{Received: received, UserAgent: string(body)})
		if err != nil {
			return
		}
		for i, e := range b.Events {
			if !json.Valid(e.Raw) {
				t.Fatalf("event %d is not JSON: %q", i, e.Raw)
			}
			a := e.Activity
			if len(e.Faults) == 0 && (a.EventID == "" || a.SessionID == "" || a.Action == "" || a.EventTime.Before(received.Add(-oldest)) || a.EventTime.After(received.Add(newest))) {
				t.Fatalf("an event without faults lacks something: %+v", a)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	event := `{"event_id":"018f9d2e-7c1a-7c3e-9b6e-0242ac120002","session_id":"s-81f3","anonymous_id":"b-77","action":"view","product_code":"S18_1749","quantity":1,"event_time":"2026-05-01T11:59:59Z","page_url":"https://shop.example/p/S18_1749?utm=1","user_agent":"Mozilla/5.0","ip":"192.0.2.1"}`
	body := []byte(`{"events":[` + strings.Repeat(event+",", 49) + event + `]}`)
	p := parser()
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Parse(body, Origin{Received: received, IP: "192.0.2.1"}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/50, "ns/event")
}
