// Command configdoc writes docs/config.md from the programs themselves: which sections each reads, and the keys,
// defaults and meanings in its settings. What the programs do and what the page says cannot differ.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/services/admin"
	"github.com/millrace-io/millrace/services/aggregate"
	"github.com/millrace-io/millrace/services/cdc"
	"github.com/millrace-io/millrace/services/collect"
	"github.com/millrace-io/millrace/services/dashboard"
	"github.com/millrace-io/millrace/services/demo"
	"github.com/millrace-io/millrace/services/enrich"
	"github.com/millrace-io/millrace/services/recommend"
	"github.com/millrace-io/millrace/services/standalone"
)

//go:generate go run . ../../../docs/config.md

// programs are all programs that read the configuration, in the order of the data's way through them. A new one is
// added here.
func programs() []app.Program {
	return []app.Program{
		cdc.Program(""), collect.Program(""), enrich.Program(""), aggregate.Program(""), recommend.Program(""),
		dashboard.Program(""), admin.Program(""), demo.Program(""), standalone.Program(""),
	}
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "configdoc:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: configdoc FILE")
	}
	text, err := page(programs())
	if err != nil {
		return err
	}
	if err := os.WriteFile(args[0], []byte(text), 0o644); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}
