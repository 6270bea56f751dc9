package standalone

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pkg/app"
)

// banner tells where everything is, once everything is ready.
func banner(out io.Writer, rt *app.Runtime, s *settings, p *parts, took time.Duration) {
	url := rt.HTTP.URL()
	var b strings.Builder
	fmt.Fprintf(&b, "\nMillrace is ready after %.1f s", took.Seconds())
	if own, children := memory(p); own > 0 {
		fmt.Fprintf(&b, " (memory: %d MiB, its PostgreSQL servers %d MiB)", own>>20, children>>20)
	}
	fmt.Fprintf(&b, ".\n\n  sales            %s/\n", url)
	if p.primary != nil {
		fmt.Fprintf(&b, "  demo shop        %s/shop\n", url)
	}
	fmt.Fprintf(&b, "  recommendations  curl '%s/v1/recommendations?limit=5'\n", url)
	fmt.Fprintf(&b, "  API              %s/docs\n", url)
	fmt.Fprintf(&b, "  Kafka            %s   registry %s\n", p.broker.Addr(), p.registryURL)
	fmt.Fprintf(&b, "  sales database   psql '%s'\n", p.sales.DSN("postgres", salesDatabase))
	if p.primary != nil {
		fmt.Fprintf(&b, "  store (primary)  psql '%s'\n", p.primary.DSN("postgres", storeDatabase))
	} else {
		fmt.Fprintf(&b, "  store            your own, read by slot %s\n", s.CDC.Slot)
	}
	fmt.Fprint(&b, "\nCtrl-C stops everything; the data stay.\n")
	fmt.Fprint(out, b.String())
}

// memory is the resident memory of this process and of its servers, in bytes; 0 where the system does not tell.
func memory(p *parts) (own, children int64) {
	own = resident(os.Getpid())
	if p.primary != nil {
		children += residentTree(p.primary.Pid()) + residentTree(p.standby.Pid())
	}
	return own, children + residentTree(p.sales.Pid())
}
