package intake

import (
	"strconv"
	"strings"
)

// personal are names of properties whose values are about a person: they become tokens, like an address does.
const personal = " email mail e_mail phone phone_number telephone mobile fax name full_name first_name last_name contact" +
	" contact_name given_name family_name surname street address address_line1 address_line2 ip_address ip_addr client_ip remote_addr "

func (r *reader) attributes(value []byte) {
	if value[0] != '{' {
		r.fault("attributes", CodeType, "is not an object", "an object of strings, numbers and booleans")
		return
	}
	n := 0
	for key, v := range members(value) {
		n++
		r.attribute(string(key), v, "the "+ordinal(n)+" of the attributes")
	}
}

// attribute adds a further property. which says where it stands, for a name is a value of the client's too.
func (r *reader) attribute(name string, value []byte, which string) {
	const field = "attributes"
	if string(value) == "null" {
		return
	}
	var text string
	switch value[0] {
	case '"':
		text = string(unquoteBytes(value))
	case '{', '[':
		r.fault(field, CodeNotScalar, which+" is neither known nor a simple value", "a string, a number or a boolean")
		return
	default:
		text = string(value)
	}
	a := &r.event.Activity
	if name == "" || len(name) > maxName {
		r.fault(field, CodeTooLong, which+" has no name or one that is too long", "a name of at most "+strconv.Itoa(maxName)+" bytes")
		return
	}
	if len(text) > maxAttribute {
		r.fault(field, CodeTooLong, which+" is too long", "at most "+strconv.Itoa(maxAttribute)+" bytes")
		return
	}
	if _, there := a.Attributes[name]; there {
		r.fault(field, CodeDuplicate, which+" is there more than once", "send it once")
		return
	}
	if len(a.Attributes) == maxEntries {
		r.fault(field, CodeTooMany, "has too many entries", "at most "+strconv.Itoa(maxEntries))
		return
	}
	if a.Attributes == nil {
		a.Attributes = make(map[string]string, 4)
	}
	if text != "" && isPersonal(name, text) {
		text = r.p.Token(text)
	}
	a.Attributes[name] = text
}

func isPersonal(name, text string) bool {
	name = strings.ToLower(strings.ReplaceAll(name, "-", "_"))
	if !strings.Contains(name, " ") && strings.Contains(personal, " "+name+" ") {
		return true
	}
	return isAddress(text)
}

// isAddress tells whether a text may be, or hold, an e-mail address.
func isAddress(text string) bool {
	at := strings.IndexByte(text, '@')
	return at > 0 && strings.Contains(text[at:], ".")
}
