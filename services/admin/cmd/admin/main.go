// Command admin looks after Millrace: topics, schemas, keys, status.
package main

import (
	"os"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/services/admin"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(app.Main(admin.Program(version))) }
