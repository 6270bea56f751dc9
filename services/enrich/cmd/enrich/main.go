// Command enrich turns the store's rows and shoppers' activity into enriched images; see package enrich.
package main

import (
	"os"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/services/enrich"
)

var version = "dev"

func main() { os.Exit(app.Main(enrich.Program(version))) }
