// Command collect takes what shoppers do, over HTTP, into Kafka.
package main

import (
	"os"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/services/collect"
)

var version = "dev" // set by the linker

func main() { os.Exit(app.Main(collect.Program(version))) }
