package plan

import (
	"strings"
	"testing"
)

func TestSplit(t *testing.T) {
	for script, want := range map[string]string{
		"":                            "",
		" ; -- x\n;/* y; */;":         "",
		"a; b":                        "a|b",
		"-- c\na 'x;''y' \";\"; b":    "a 'x;''y' \";\"|b",
		"a $$;$$ $t$ ; $$ $t$; b$1;c": "a $$;$$ $t$ ; $$ $t$|b$1|c",
		`a E'\';' ; b`:                `a E'\';'|b`,
		`a '\'; b`:                    `a '\'|b`,
		"a /* ; /* ; */ ; */ ; b":     "a /* ; /* ; */ ; */|b",
		"a 'open; b":                  "a 'open; b",
		"name'x;'; b":                 "name'x;'|b",
		"\xff;a":                      "\xff|a",
	} {
		var got []string
		for _, s := range split(script) {
			got = append(got, s.text)
			if !strings.HasPrefix(script[s.at:], s.text) {
				t.Errorf("%q: %q is not at %d", script, s.text, s.at)
			}
		}
		if strings.Join(got, "|") != want {
			t.Errorf("%q: %q", script, got)
		}
	}
}

func TestJudge(t *testing.T) {
	for text, want := range map[string]fate{
		"ALTER TABLE a ADD b int": run, "grant select on a to b": pass, "ALTER TABLE a.b OWNER TO c": pass, "drop /* x */ database d": refuse,
		"copy a to program 'rm'": refuse, "DO $$ begin end $$": refuse, "CREATE USER x": refuse, "create table users (id int)": run,
	} {
		if got := (statement{text: text}).judge(); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestPlace(t *testing.T) {
	if got := place("é\nöä x", strings.Index("é\nöä x", "x")); got != "line 2, column 4" {
		t.Error(got)
	}
}

func FuzzSplit(f *testing.F) {
	f.Add("a 'b;' $x$ ; $x$ /* ; */ -- ;\n; e'\\'")
	f.Fuzz(func(t *testing.T, script string) {
		end := 0
		for _, s := range split(script) {
			if s.at < end || !strings.HasPrefix(script[s.at:], s.text) || strings.Trim(withoutComments(s.text), blank) == "" {
				t.Fatalf("%q: %q at %d", script, s.text, s.at)
			}
			end = s.at + len(s.text)
			_ = s.judge()
		}
	})
}
