package evolve

import "slices"

// Follows tells why values of the type before cannot be read as the type after; "" if they can, without loss.
//
// The list of what is allowed: int to long, int to double, float to double, a decimal to one of more digits and the same
// scale, an enumeration to one that has more symbols or to a string, arrays and maps of these, records whose fields
// follow. Equal types follow, whatever is said about them beside their form.
func Follows(before, after any) string {
	if union, ok := before.([]any); ok {
		return followUnion(union, after)
	}
	from, to := form(before), form(after)
	switch {
	case from.base == "decimal" && to.base == "decimal":
		return followDecimal(from, to)
	case from.base != to.base:
		return promote(from.base, to.base)
	case from.base == "array" || from.base == "map":
		return Follows(withoutNull(from.inner), withoutNull(to.inner))
	case from.base == "enum":
		for _, s := range from.symbols {
			if !slices.Contains(to.symbols, s) {
				return "the value " + s + " is gone"
			}
		}
	case from.base == "record":
		return followRecord(from, to)
	case from.base == "fixed" && from.size != to.size:
		return "the size is another"
	}
	return ""
}

func followUnion(before []any, after any) string {
	branches, ok := after.([]any)
	if !ok {
		branches = []any{after}
	}
	for _, b := range before {
		if !slices.ContainsFunc(branches, func(a any) bool { return Follows(b, a) == "" }) {
			return TypeName(b) + " has no place in it"
		}
	}
	return ""
}

// promote is what Avro's readers do by themselves without loss.
func promote(from, to string) string {
	switch from + " " + to {
	case "int long", "int double", "float double", "enum string":
		return ""
	}
	return "values of the one are no values of the other"
}

func followDecimal(from, to shape) string {
	switch {
	case from.scale != to.scale:
		return "the scale is another, so that the digits written so far would be read wrongly"
	case from.precision > to.precision:
		return "it has fewer digits"
	}
	return ""
}

func followRecord(from, to shape) string {
	for _, f := range from.fields {
		for _, g := range to.fields {
			if f.name != g.name {
				continue
			}
			if problem := Follows(f.kind, g.kind); problem != "" {
				return f.name + ": " + problem
			}
		}
	}
	return ""
}

// shape is the form of an Avro type.
type shape struct {
	base                   string // the logical type, else the type
	precision, scale, size int
	inner                  any
	symbols                []string
	fields                 []member
}

type member struct {
	name string
	kind any
}

func form(t any) shape {
	switch t := t.(type) {
	case string:
		return shape{base: t}
	case map[string]any:
		if nested, ok := t["type"].(map[string]any); ok {
			return form(nested)
		}
		s := shape{precision: number(t["precision"]), scale: number(t["scale"]), size: number(t["size"])}
		s.base, _ = t["type"].(string)
		if logical, ok := t["logicalType"].(string); ok {
			s.base = logical
		}
		if s.inner = t["items"]; s.inner == nil {
			s.inner = t["values"]
		}
		symbols, _ := t["symbols"].([]any)
		for _, e := range symbols {
			if name, ok := e.(string); ok {
				s.symbols = append(s.symbols, name)
			}
		}
		fields, _ := t["fields"].([]any)
		for _, e := range fields {
			f, _ := e.(map[string]any)
			name, _ := f["name"].(string)
			s.fields = append(s.fields, member{name, withoutNull(f["type"])})
		}
		return s
	}
	return shape{}
}
