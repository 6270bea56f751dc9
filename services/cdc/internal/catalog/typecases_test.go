package catalog_test

import (
	"strings"

	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// typeCase is a type, values of it, and what SQL says that they are.
type typeCase struct {
	sql    string
	values []string // as in a literal; the first is the page's example
	// wants are SQL of "$", the column, that gives JSON, for each set of modes; a missing one is as the first.
	wants []string
	note  string // for the page
	since int    // major version

	captured *rows.Type // of an extension that is not here: values are PostgreSQL's text, wants are JSON
}

func (c typeCase) literal(i int) string {
	return "'" + strings.ReplaceAll(c.values[i], "'", "''") + "'::" + c.sql
}

func (c typeCase) want(mode int) string {
	switch {
	case mode < len(c.wants):
		return c.wants[mode]
	case len(c.wants) > 0:
		return c.wants[0]
	}
	return asText
}

const (
	asText    = "to_jsonb($::text)"
	asTexts   = "to_jsonb($::text[])"
	asJSON    = "to_jsonb($)"
	asDouble  = "to_jsonb($::float8)"
	asHex     = "to_jsonb(encode($, 'hex'))"
	asBase64  = `to_jsonb(replace(encode($, 'base64'), E'\n', ''))`
	asDays    = "to_jsonb(CASE WHEN isfinite($) THEN $ - '1970-01-01'::date WHEN $ > '1970-01-01' THEN 2147483647 WHEN $ < '1970-01-01' THEN -2147483648 END)"
	asMicros  = "to_jsonb(CASE WHEN isfinite($) THEN (extract(epoch FROM $) * 1000000)::bigint WHEN $ > '1970-01-01' THEN 9223372036854775807 WHEN $ < '1970-01-01' THEN -9223372036854775808 END)"
	asMillis  = "to_jsonb(CASE WHEN isfinite($) THEN floor(extract(epoch FROM $) * 1000)::bigint WHEN $ > '1970-01-01' THEN 9223372036854775807 WHEN $ < '1970-01-01' THEN -9223372036854775808 END)"
	asDayTime = "to_jsonb((extract(epoch FROM $) * 1000000)::bigint)"
)

// typesSetup makes the types of one's own, and the words of ISO 8601 in SQL.
const typesSetup = `CREATE EXTENSION hstore; CREATE EXTENSION citext;
	CREATE TYPE mood AS ENUM ('sad', 'ok', 'very happy');
	CREATE TABLE mood_table (m mood); CREATE TYPE address AS (street text, number int, at interval);
	CREATE DOMAIN cents AS bigint CHECK (VALUE >= 0); CREATE DOMAIN price AS numeric(8,3); CREATE DOMAIN euro AS price;
	CREATE DOMAIN moods AS mood[]; CREATE DOMAIN home AS address; CREATE DOMAIN matrix AS int[][];
	CREATE TYPE span AS RANGE (subtype = float8);
	CREATE FUNCTION iso(v timestamp) RETURNS text LANGUAGE sql AS $$ SELECT CASE WHEN NOT isfinite(v) THEN v::text ELSE
		CASE WHEN y < -1 THEN '-' || lpad((-y - 1)::text, 4, '0') WHEN y = -1 THEN '0000' WHEN y > 9999 THEN '+' || y ELSE lpad(y::text, 4, '0') END
		|| to_char(v, '-MM-DD"T"') || v::time END FROM extract(year FROM v) y $$`

func typeCases() []typeCase {
	var out []typeCase
	out = append(out, numberCases()...)
	out = append(out, timeCases()...)
	out = append(out, textCases()...)
	out = append(out, catalogCases()...)
	out = append(out, ownCases()...)
	out = append(out, arrayCases()...)
	return append(out, extensionCases()...)
}

func numberCases() []typeCase {
	return []typeCase{
		{sql: "boolean", values: []string{"t", "f"}, wants: []string{asJSON}},
		{sql: "smallint", values: []string{"7", "-32768", "32767"}, wants: []string{asJSON}},
		{sql: "integer", values: []string{"7", "-2147483648", "2147483647"}, wants: []string{asJSON}},
		{sql: "bigint", values: []string{"7", "-9223372036854775808", "9223372036854775807"}, wants: []string{asJSON}},
		{sql: "real", values: []string{"1.5", "NaN", "Infinity", "-Infinity", "3.4028235e38", "1e-45", "0.1", "-0"}, wants: []string{asDouble}},
		{sql: "double precision", values: []string{"1.5", "NaN", "Infinity", "-Infinity", "1.7976931348623157e308", "5e-324", "0.1", "-0"}, wants: []string{asDouble}},
		{sql: "numeric(12,3)", values: []string{"136.25", "-0.001", "999999999.999", "0"}, wants: []string{asText, asText, asDouble},
			note: "`NaN` does not fit a decimal: mode string or double, or `cdc.text`"},
		{sql: "numeric(60,20)", values: []string{"1", "-1234567890123456789012345678901234567890.00000000000000000001"}, wants: []string{asText, asText, asDouble}},
		{sql: "numeric", values: []string{"1.10", "NaN", "Infinity", "-Infinity", "1e100", "-0.00000000000000000000000000000001"},
			wants: []string{asText, asText, asDouble}, note: "as PostgreSQL prints it, `NaN`, `Infinity` and `-Infinity` included"},
		{sql: "numeric(2,-3)", values: []string{"12000", "-99000"}, wants: []string{asText, asText, asDouble}, note: "Avro has no negative scale"},
		{sql: "numeric(2,5)", values: []string{"0.00012", "-0.00099"}, wants: []string{asText, asText, asDouble}, note: "Avro has no scale beyond the precision"},
		{sql: "money", values: []string{"1234.56", "-92233720368547758.08", "92233720368547758.07", "-0.05"},
			wants: []string{"to_jsonb($::numeric::text)", "to_jsonb($::numeric::text)", "to_jsonb($::numeric::float8)"},
			note:  "hundredths, without a currency: `lc_monetary` is C for the session; a source whose currency has other subunits has them scaled"},
		{sql: "oid", values: []string{"1259", "4294967295"}, wants: []string{"to_jsonb($::bigint)"}},
		{sql: "xid", values: []string{"731", "4294967295"}, wants: []string{"to_jsonb($::text::bigint)"}},
		{sql: "cid", values: []string{"3"}, wants: []string{"to_jsonb($::text::bigint)"}},
		{sql: "xid8", values: []string{"18446744073709551615"}},
	}
}

func timeCases() []typeCase {
	return []typeCase{
		{sql: "date", values: []string{"2024-02-29", "0044-03-15 BC", "0001-12-31 BC", "5874897-12-31", "4714-11-24 BC", "infinity", "-infinity"},
			wants: []string{asDays, asDays, "to_jsonb(CASE WHEN $ > '200000-01-01' AND isfinite($) THEN '+' || $::text ELSE replace(public.iso($::timestamp), 'T00:00:00', '') END)"},
			note:  "±infinity is the largest and the smallest int"},
		{sql: "time", values: []string{"12:34:56.789012", "24:00", "00:00"}, wants: []string{asDayTime, "to_jsonb(trunc(extract(epoch FROM $) * 1000)::bigint)", asText},
			note: "24:00 is 86,400,000,000"},
		{sql: "time(3)", values: []string{"12:34:56.789", "24:00"}, wants: []string{asDayTime, "to_jsonb(trunc(extract(epoch FROM $) * 1000)::bigint)", asText}},
		{sql: "time with time zone", values: []string{"12:34:56.789+05:30", "24:00-08", "00:00:00+15:59:59"}, note: "with its own offset"},
		{sql: "timestamp", values: []string{"2024-05-06 07:08:09.123456", "0044-03-15 12:00 BC", "12345-01-02 03:04:05.6", "infinity", "-infinity", "1969-12-31 23:59:59.9999", "4714-11-24 00:00 BC"},
			wants: []string{asMicros, asMillis, "to_jsonb(public.iso($))"}, note: "read as UTC; ±infinity is the largest and the smallest long; past the year 294246 it does not fit"},
		{sql: "timestamptz", values: []string{"2024-05-06 07:08:09.123456+05:30", "0044-03-15 12:00 BC", "12345-01-02 03:04:05.6", "infinity", "-infinity", "1969-12-31 23:59:59.9999+00", "294246-12-31 23:59:59.999999+00"},
			wants: []string{asMicros, asMillis, "to_jsonb(public.iso($ AT TIME ZONE 'UTC') || CASE WHEN isfinite($) THEN 'Z' ELSE '' END)"}, note: "as timestamp"},
		{sql: "timestamp(0)", values: []string{"2024-05-06 07:08:09"}, wants: []string{asMicros, asMillis, "to_jsonb(public.iso($))"}},
		{sql: "interval", values: []string{"1 year 2 mons 3 days 04:05:06.789", "0", "-1 day +02:03:04.000001", "1 mon -1 day", "178000000 years", "-00:00:00.5"},
			note: "ISO 8601: months, days and seconds are kept apart"},
		{sql: "interval(6)", since: 17, values: []string{"infinity", "-infinity"}, note: "infinite since PostgreSQL 17"},
		{sql: "daterange", values: []string{"[2024-01-01,2024-02-01)", "(,)", "empty", "[2024-01-01,infinity]"}},
		{sql: "tsrange", values: []string{"[2024-01-01 00:00,2024-02-01 12:00)"}},
		{sql: "tstzrange", values: []string{"[2024-01-01 00:00+05:30,2024-02-01 12:00Z)"}},
	}
}

func textCases() []typeCase {
	strange := "é\t\n\\ \\N \"quoted\" 'single' {braces}, NULL \x01 🙂"
	return []typeCase{
		{sql: "text", values: []string{"text", "", strange, `\N`, "NULL"}},
		{sql: "varchar(40)", values: []string{"text", ""}},
		{sql: "char(5)", values: []string{"ab", ""}, wants: []string{"to_jsonb(rpad($::text, 5))"}, note: "padded, as stored"},
		{sql: `"char"`, values: []string{"x", "", `\377`}},
		{sql: "name", values: []string{"table_name"}},
		{sql: "uuid", values: []string{"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}},
		{sql: "json", values: []string{`{"b": 1, "a":  [1.0, "x\ty"], "b": null}`, "null"}, note: "character by character"},
		{sql: "jsonb", values: []string{`{"a": [1.00, "x\ty"]}`, "null", `"s"`, "1e400"}},
		{sql: "jsonpath", values: []string{`$.track.segments[*] ? (@.hr > 130)`}},
		{sql: "xml", values: []string{"<a b=\"1\">x</a>", "plain <i>content</i>"}},
		{sql: "bytea", values: []string{`\x00ff`, `\x`, `\x` + strings.Repeat("00010203fe", 41)}, wants: []string{asHex, asBase64, asHex}},
		{sql: "bit(3)", values: []string{"101", "000"}, note: "the length is kept"},
		{sql: "bit varying", values: []string{"00101", "", strings.Repeat("10", 100)}},
		{sql: "inet", values: []string{"192.168.0.1/24", "::1", "10.0.0.1"}, wants: []string{asJSON}},
		{sql: "cidr", values: []string{"192.168.0.0/16", "2001:db8::/32"}},
		{sql: "macaddr", values: []string{"08:00:2b:01:02:03"}},
		{sql: "macaddr8", values: []string{"08:00:2b:01:02:03:04:05"}},
		{sql: "point", values: []string{"(1.5,-2)", "(NaN,Infinity)"}},
		{sql: "line", values: []string{"{1,2,3}"}},
		{sql: "lseg", values: []string{"[(1,2),(3,4)]"}},
		{sql: "box", values: []string{"(3,4),(1,2)"}},
		{sql: "path", values: []string{"[(1,2),(3,4)]", "((1,2),(3,4))"}},
		{sql: "polygon", values: []string{"((1,2),(3,4),(5,0.1))"}},
		{sql: "circle", values: []string{"<(1,2),0.3>"}},
		{sql: "tsvector", values: []string{"'a':1A,3 'fat':2B", ""}},
		{sql: "tsquery", values: []string{"'fat' & ( 'rat' | !'cat' )"}},
	}
}

func catalogCases() []typeCase {
	return []typeCase{
		{sql: "pg_lsn", values: []string{"16/B374D848"}},
		{sql: "txid_snapshot", values: []string{"10:20:10,14,15"}},
		{sql: "pg_snapshot", values: []string{"10:20:10,14,15"}},
		{sql: "tid", values: []string{"(0,1)"}},
		{sql: "regclass", values: []string{"pg_class", "mood_table", "12345678"}, note: "names outside pg_catalog with their schema; what does not exist any more is its number"},
		{sql: "regtype", values: []string{"integer", "mood"}},
		{sql: "regproc", values: []string{"now"}},
		{sql: "regprocedure", values: []string{"sum(integer)"}},
		{sql: "regoper", values: []string{"pg_catalog.||/"}},
		{sql: "regoperator", values: []string{"+(integer,integer)"}},
		{sql: "regrole", values: []string{"postgres"}},
		{sql: "regnamespace", values: []string{"public"}},
		{sql: "regcollation", values: []string{`"C"`}},
		{sql: "regconfig", values: []string{"english"}},
		{sql: "regdictionary", values: []string{"english_stem"}},
		{sql: "aclitem", values: []string{"postgres=arw/postgres"}},
		{sql: "int2vector", values: []string{"1 2 3"}},
		{sql: "oidvector", values: []string{"23 25"}},
		{sql: "refcursor", values: []string{"a cursor"}},
	}
}

func ownCases() []typeCase {
	return []typeCase{
		{sql: "int4range", values: []string{"[1,5)", "empty", "(,)"}},
		{sql: "int8range", values: []string{"[1,9223372036854775807)"}},
		{sql: "numrange", values: []string{"(1.10,NaN)"}},
		{sql: "int4multirange", values: []string{"{[1,3),[5,8)}", "{}"}},
		{sql: "int8multirange", values: []string{"{[1,3)}"}},
		{sql: "nummultirange", values: []string{"{[1.0,1.5]}"}},
		{sql: "datemultirange", values: []string{"{[2024-01-01,2024-02-01)}"}},
		{sql: "tsmultirange", values: []string{"{[2024-01-01 00:00,2024-02-01 00:00)}"}},
		{sql: "tstzmultirange", values: []string{"{[2024-01-01 00:00+05:30,2024-02-01 00:00Z)}"}},
		{sql: "span", values: []string{"[0.1,0.2)"}, note: "a range type of one's own"},
		{sql: "span_multirange", values: []string{"{[0.1,0.2)}"}},
		{sql: "mood", values: []string{"very happy", "sad"}, note: "an enum: its labels are a property of the schema, so that a new one changes nothing for readers; a label with a comma cannot be told apart there"},
		{sql: "cents", values: []string{"99"}, wants: []string{asJSON}, note: "a domain is what it is over"},
		{sql: "euro", values: []string{"1.500"}, wants: []string{asText, asText, asDouble}, note: "a domain over a domain"},
		{sql: "address", values: []string{`("High ""St""",7,P1D)`, `(,,)`},
			note: "a composite is text: the stream does not tell when its attributes change, so a record would break"},
		{sql: "home", values: []string{`(Lane,1,PT2H)`}, note: "a domain over a composite"},
	}
}

func arrayCases() []typeCase {
	times := func(of string) string {
		return "CASE WHEN $ IS NULL THEN NULL ELSE coalesce((SELECT jsonb_agg(" + strings.ReplaceAll(of, "$", "x") + " ORDER BY n) FROM unnest($) WITH ORDINALITY u(x, n)), '[]') END"
	}
	return []typeCase{
		{sql: "int[]", values: []string{"{1,2,NULL}", "{}", "{-7}"}, wants: []string{asJSON},
			note: "one dimension that begins at 1; others do not fit: `cdc.text`"},
		{sql: "int[][]", values: []string{"{{1,2},{3,NULL}}", "{}", "{1}", "[2:3]={1,2}"}, note: "declared with several dimensions: text, whatever it holds"},
		{sql: "bigint[]", values: []string{"{9223372036854775807}"}, wants: []string{asJSON}},
		{sql: "boolean[]", values: []string{"{t,f,NULL}"}, wants: []string{asJSON}},
		{sql: "double precision[]", values: []string{"{1.5,NULL}", "{NaN,Infinity,-Infinity}"}, wants: []string{asJSON}},
		{sql: "text[]", values: []string{`{a,"b c",NULL}`, `{a,"b c",NULL,"NULL","null","","\"q\"","\\","{x}","a,b","é","` + "\n" + `"}`, "{}"}, wants: []string{asJSON}},
		{sql: "varchar(20)[]", values: []string{`{a,"b "}`}, wants: []string{asJSON}},
		{sql: "numeric(10,2)[]", values: []string{"{1.50,-2,NULL}"}, wants: []string{asTexts, asTexts, "to_jsonb($::float8[])"}},
		{sql: "numeric[]", values: []string{"{1.50,NULL}", "{NaN,-Infinity}"}, wants: []string{asTexts, asTexts, "to_jsonb($::float8[])"}},
		{sql: "money[]", values: []string{`{"$1,234.56",-0.05}`}, wants: []string{"to_jsonb($::numeric[]::text[])", "to_jsonb($::numeric[]::text[])", "to_jsonb($::numeric[]::float8[])"}},
		{sql: "date[]", values: []string{"{2024-02-29,infinity,NULL}"}, wants: []string{times(asDays), times(asDays), asTexts}},
		{sql: "time[]", values: []string{"{24:00,00:00:00.5}"}, wants: []string{times(asDayTime), times("to_jsonb(trunc(extract(epoch FROM $) * 1000)::bigint)"), asTexts}},
		{sql: "timestamptz[]", values: []string{`{"2024-05-06 07:08:09.123456+05:30",NULL,infinity}`}, wants: []string{times(asMicros), times(asMillis),
			times("to_jsonb(public.iso($ AT TIME ZONE 'UTC') || CASE WHEN isfinite($) THEN 'Z' ELSE '' END)")}},
		{sql: "interval[]", values: []string{`{"1 day","02:00"}`}, wants: []string{asTexts}},
		{sql: "uuid[]", values: []string{"{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"}, wants: []string{asTexts}},
		{sql: "jsonb[]", values: []string{`{"{\"a\": \"b\\\\\"}",null}`}, wants: []string{asTexts}},
		{sql: "bytea[]", values: []string{`{"\\x00ff","\\x"}`}, wants: []string{times(asHex), times(asBase64), times(asHex)}},
		{sql: "box[]", values: []string{"{(3,4),(1,2);(7,8),(5,6)}"}, wants: []string{asTexts}, note: "PostgreSQL separates its elements by `;`"},
		{sql: "int4range[]", values: []string{`{"[1,5)",empty}`}, wants: []string{asTexts}},
		{sql: "mood[]", values: []string{`{"very happy",sad,NULL}`}, wants: []string{asTexts}},
		{sql: "moods", values: []string{`{"very happy"}`}, wants: []string{asTexts}, note: "a domain over an array"},
		{sql: "moods[]", values: []string{`{"{sad}","{ok}"}`}, note: "an array of arrays"},
		{sql: "matrix", values: []string{"{{1,2},{3,4}}"}, note: "a domain over an array of several dimensions"},
		{sql: "euro[]", values: []string{"{1.500,NULL}"}, wants: []string{asTexts, asTexts, "to_jsonb($::numeric[]::float8[])"}},
		{sql: "address[]", values: []string{`{"(\"High \"\"St\"\"\",7,)",NULL}`}, wants: []string{asTexts}},
		{sql: "hstore[]", values: []string{`{"\"a\"=>\"1\"",NULL}`}, wants: []string{times("public.hstore_to_jsonb($)")}},
		{sql: "citext[]", values: []string{`{Ab,NULL}`}, wants: []string{asTexts}},
	}
}

func extensionCases() []typeCase {
	ewkb := "0101000020E6100000000000000000F03F0000000000000040"
	point := &rows.Type{Extension: "postgis", Name: "geometry"}
	geography := &rows.Type{Extension: "postgis", Name: "geography"}
	return []typeCase{
		{sql: "hstore", values: []string{`"a"=>"1"`, `"a"=>"1", "b"=>NULL`, "", `"q\"\\"=>"x, y=>z", "NULL"=>"NULL"`}, wants: []string{"public.hstore_to_jsonb($)"}},
		{sql: "citext", values: []string{"Mixed Case", ""}, note: "as written; in a key `a` and `A` are two"},
		{sql: "ltree", values: []string{"Top.Science", ""}, wants: []string{`"Top.Science"`, `""`}, captured: &rows.Type{Extension: "ltree", Name: "ltree"}},
		{sql: "geometry (PostGIS)", values: []string{ewkb}, wants: []string{`"` + strings.ToLower(ewkb) + `"`}, captured: point,
			note: "EWKB, which has the SRID"},
		{sql: "geography (PostGIS)", values: []string{ewkb}, wants: []string{`"` + strings.ToLower(ewkb) + `"`}, captured: geography},
		{sql: "geometry[] (PostGIS)", values: []string{"{" + ewkb + ":" + ewkb + "}"}, wants: []string{`["` + strings.ToLower(ewkb) + `", "` + strings.ToLower(ewkb) + `"]`},
			captured: &rows.Type{Elem: point, Delimiter: ':'}, note: "PostGIS separates its elements by `:`"},
		{sql: "vector (pgvector)", values: []string{"[1,-2.5,3e-10]"}, wants: []string{"[1, -2.5, 3.00000000e-10]"}, captured: &rows.Type{Extension: "vector", Name: "vector"}},
		{sql: "halfvec (pgvector)", values: []string{"[1,0.099975586]"}, wants: []string{"[1, 0.099975586]"}, captured: &rows.Type{Extension: "vector", Name: "halfvec"}},
		{sql: "sparsevec (pgvector)", values: []string{"{1:1.5,3:2}/5"}, wants: []string{`"{1:1.5,3:2}/5"`}, captured: &rows.Type{Extension: "vector", Name: "sparsevec"}},
	}
}
