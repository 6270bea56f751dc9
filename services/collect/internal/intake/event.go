package intake

import (
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millrace-io/millrace/schemas"
)

// Bounds of fields, in bytes.
const (
	maxID        = 128
	maxPage      = 2048
	maxAgent     = 512
	maxQuantity  = 1_000_000_000
	maxAttribute = 1024
	maxName      = 64
	maxEntries   = 64
)

// reader collects one event.
type reader struct {
	p      *Parser
	event  Event
	fields uint32
	sentAt []byte
	timeAt []byte
}

// Fields that an event may have; the order is that of the bits in reader.fields.
var fieldNames = [...]string{"event_id", "event_time", "sent_at", "customer_number", "anonymous_id", "session_id", "action",
	"product_code", "quantity", "page_url", "user_agent", "ip", "attributes"}

func (p *Parser) event(raw, sentAt []byte, from Origin) Event {
	r := reader{p: p, sentAt: sentAt}
	r.event.Raw = raw
	switch {
	case raw[0] != '{':
		r.fault("", CodeType, "is not an object", "send each event as a JSON object")
		return r.event
	case len(raw) > p.Limits.EventBytes:
		r.fault("", CodeTooLarge, "is too large", "send at most "+strconv.Itoa(p.Limits.EventBytes)+" bytes for one event")
		return r.event
	}
	n := 0
	for key, value := range members(raw) {
		n++
		r.member(string(key), value, n)
	}
	r.finish(from)
	return r.event
}

func (r *reader) fault(field, code, reason, hint string) {
	r.event.Faults = append(r.event.Faults, Fault{field, code, reason, hint})
}

// once notes a field and tells whether it is there for the first time.
func (r *reader) once(name string) bool {
	for i, n := range fieldNames {
		if n == name {
			first := r.fields&(1<<i) == 0
			r.fields |= 1 << i
			if !first {
				r.fault(name, CodeDuplicate, "is there more than once", "send it once")
			}
			return first
		}
	}
	return true
}

func (r *reader) member(name string, value []byte, position int) {
	if !r.once(name) || string(value) == "null" {
		return
	}
	a := &r.event.Activity
	switch name {
	case "event_id":
		a.EventID = r.id(name, value)
	case "event_time":
		r.timeAt = value
	case "sent_at":
		r.sentAt = value
	case "customer_number":
		a.CustomerNumber = optional(r.id(name, value))
	case "anonymous_id":
		if id := r.id(name, value); id != "" {
			a.AnonymousID = optional(r.p.Token(id))
		}
	case "session_id":
		a.SessionID = r.id(name, value)
	case "action":
		a.Action = r.action(value)
	case "product_code":
		a.ProductCode = optional(r.id(name, value))
	case "quantity":
		a.Quantity = r.quantity(value)
	case "page_url":
		a.PageURL = r.page(value)
	case "user_agent":
		if s, ok := r.text(name, value); ok {
			a.UserAgent = optional(clip(s, maxAgent))
		}
	case "ip":
		a.IP = r.address(value)
	case "attributes":
		r.attributes(value)
	case "customer_verified", "received_at":
		r.fault(name, CodeReserved, "is not for clients to set", "leave it out")
	default:
		r.attribute(name, value, "the "+ordinal(position)+" field of the event")
	}
}

// text is a JSON string's text.
func (r *reader) text(field string, value []byte) (string, bool) {
	if value[0] != '"' {
		r.fault(field, CodeType, "is not a string", "send a JSON string")
		return "", false
	}
	return string(unquoteBytes(value)), true
}

// id reads a short identifier: a string, or a whole number as its digits.
func (r *reader) id(field string, value []byte) string {
	var s string
	switch {
	case value[0] == '"':
		s = strings.TrimSpace(string(unquoteBytes(value)))
	case wholeNumber(value):
		s = string(value)
	default:
		r.fault(field, CodeType, "is neither a string nor a whole number", "send a JSON string")
		return ""
	}
	if len(s) > maxID {
		r.fault(field, CodeTooLong, "is too long", "send at most "+strconv.Itoa(maxID)+" bytes")
		return ""
	}
	if strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		r.fault(field, CodeCharacters, "has control characters", "send printable text")
		return ""
	}
	if field != "anonymous_id" && isAddress(s) {
		return r.p.Token(s) // some shops know their customers by e-mail
	}
	return s
}

func (r *reader) action(value []byte) string {
	if value[0] != '"' {
		r.fault("action", CodeType, "is not a string", actionHint())
		return ""
	}
	// The contract's own string is returned, so that no event keeps one of its own.
	given := unquoteBytes(value)
	for _, a := range schemas.Actions() {
		if string(given) == a {
			return a
		}
	}
	r.fault("action", CodeUnknown, "is not a known action", actionHint())
	return ""
}

func actionHint() string {
	all := schemas.Actions()
	return "one of " + strings.Join(all[:], ", ")
}

func (r *reader) quantity(value []byte) *int64 {
	const hint = "a whole number from 1 to 1000000000, as a number or as digits in a string"
	if value[0] == '"' {
		value = unquoteBytes(value)
	}
	if !wholeNumber(value) {
		r.fault("quantity", CodeType, "is not a whole number", hint)
		return nil
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil || n < 1 || n > maxQuantity {
		r.fault("quantity", CodeRange, "is out of range", hint)
		return nil
	}
	return &n
}

// page keeps what says where the shopper was and drops what may say who: query, fragment, user and password.
func (r *reader) page(value []byte) *string {
	s, ok := r.text("page_url", value)
	if !ok {
		return nil
	}
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		s = s[:i]
	}
	if start := strings.Index(s, "//"); start >= 0 {
		start += 2
		end := len(s)
		if i := strings.IndexByte(s[start:], '/'); i >= 0 {
			end = start + i
		}
		if at := strings.LastIndexByte(s[start:end], '@'); at >= 0 {
			s = s[:start] + s[start+at+1:]
		}
	}
	if len(s) > maxPage {
		r.fault("page_url", CodeTooLong, "is too long", "send at most "+strconv.Itoa(maxPage)+" bytes before the query")
		return nil
	}
	return optional(s)
}

func (r *reader) address(value []byte) *string {
	s, ok := r.text("ip", value)
	if !ok || s == "" {
		return nil
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		r.fault("ip", CodeAddress, "is not an IP address", "an address such as 192.0.2.1, or leave it out")
		return nil
	}
	return optional(r.p.Token(canonical(addr)))
}

// canonical gives one form to an address however it was written, so that its token is one.
func canonical(a netip.Addr) string { return a.Unmap().WithZone("").String() }

func (r *reader) finish(from Origin) {
	a := &r.event.Activity
	a.ReceivedAt = from.Received
	a.EventTime = r.when(from.Received)
	missing := func(field, hint string) { r.fault(field, CodeMissing, "is missing", hint) }
	if a.SessionID == "" && !r.faulty("session_id") {
		missing("session_id", "an id of the visit that stays the same until it ends")
	}
	if a.Action == "" && !r.faulty("action") {
		missing("action", actionHint())
	}
	switch a.Action {
	case "view", "add_to_cart", "remove_from_cart", "rate":
		if a.ProductCode == nil && !r.faulty("product_code") {
			missing("product_code", "the product that the action is about")
		}
	}
	if len(r.event.Faults) > 0 {
		return
	}
	if a.EventID == "" {
		a.EventID = r.p.NewID()
	}
	if a.UserAgent == nil {
		a.UserAgent = optional(clip(strings.ToValidUTF8(from.UserAgent, ""), maxAgent))
	}
	if a.IP == nil {
		if addr, err := netip.ParseAddr(from.IP); err == nil {
			a.IP = optional(r.p.Token(canonical(addr)))
		}
	}
	if a.Attributes == nil {
		a.Attributes = map[string]string{}
	}
}

func (r *reader) faulty(field string) bool {
	for i := range r.event.Faults {
		if r.event.Faults[i].Field == field {
			return true
		}
	}
	return false
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// clip shortens s to at most n bytes without cutting a character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func wholeNumber(b []byte) bool {
	if len(b) > 0 && b[0] == '-' {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 19 {
		return false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

func ordinal(n int) string {
	suffix := "th"
	if n%100 < 11 || n%100 > 13 {
		switch n % 10 {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return strconv.Itoa(n) + suffix
}

// Contract is the part of the schema that a fault is about, for the quarantine.
func (f Fault) Contract() schemas.Fault {
	return schemas.Fault{Path: f.Field, Code: f.Code, Expected: f.Hint}
}
