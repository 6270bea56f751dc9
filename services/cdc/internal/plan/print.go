package plan

import (
	"fmt"
	"io"
)

// Print writes the report for people.
func (r *Report) Print(out io.Writer) error {
	p := printer{out: out}
	for _, t := range r.Tables {
		p.table(t)
	}
	if len(r.Tables) == 0 {
		p.line("no captured table changes")
	}
	for _, n := range r.Notes {
		p.line("note: %s", n)
	}
	if r.Breaks {
		p.line("result: something breaks")
	} else {
		p.line("result: nothing breaks")
	}
	return p.err
}

type printer struct {
	out io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.out, format+"\n", args...)
	}
}

func (p *printer) table(t *Table) {
	event := ""
	if t.Event != "" {
		event = " " + t.Event
	}
	p.line("table %s%s (topic %s)", t.Name, event, t.Topic)
	for _, c := range t.Changes {
		p.line("  %s", c)
	}
	for _, s := range t.Subjects {
		if s.Compatible {
			p.line("  subject %s: compatible", s.Name)
		} else {
			p.line("  subject %s: INCOMPATIBLE: %s", s.Name, s.Reason)
		}
	}
	for _, b := range t.Breaks {
		p.line("  breaks: %s", b)
	}
	for _, n := range t.Notices {
		p.line("  notice: %s", n)
	}
	for _, e := range t.Readers {
		word := "notices"
		if e.Breaks {
			word = "breaks"
		}
		p.line("  %s %s: it reads %s: %s", e.Program, word, e.Column, e.Effect)
	}
	if t.Reread != "" {
		p.line("  then: %s", t.Reread)
	}
}
