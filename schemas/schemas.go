// Package schemas is the only place of the contracts between services: topics, Avro schemas with their Go types, and
// the migrations of the sales database.
//
// A released schema (avro/<subject>/vN.avsc) never changes: the next one is vN+1 and must be readable by, and able to
// read, all before it (FULL_TRANSITIVE). The topics store.<schema>.<table> are not here: cdc derives them from the
// source's catalog, in the shape told by [Envelope].
package schemas

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-io/millrace/pkg/kafka"
)

//go:embed avro/*/*.avsc
var avroFiles embed.FS

//go:embed sql/sales/*.sql
var salesFiles embed.FS

// Topics, without prefix.
const (
	SalesOrders           = "sales.orders"
	SalesLines            = "sales.lines"
	SalesProducts         = "sales.products"
	ActivityRaw           = "activity.raw"
	ActivityEnriched      = "activity.enriched"
	Quarantine            = "quarantine"
	RecommendationsServed = "recommendations.served"
	Progress              = "progress"
	CDCPosition           = "cdc.position"
	CDCRequests           = "cdc.requests"
	CDCNotifications      = "cdc.notifications"
	EnrichWaiting         = "enrich.waiting"
	// StorePrefix begins the names of the topics that cdc derives: store.<schema>.<table>.
	StorePrefix = "store."
)

// SalesChanged is the channel of the sales database on which aggregate announces, by NOTIFY, that totals have changed.
const SalesChanged = "millrace_sales"

// Partitions is the default number of partitions of a keyed topic.
const Partitions = 6

const day = 24 * time.Hour

// Topics are all declared topics.
func Topics() []kafka.Topic {
	return []kafka.Topic{
		compacted(SalesOrders, Partitions),
		compacted(SalesLines, Partitions),
		compacted(SalesProducts, Partitions),
		{Name: ActivityRaw, Partitions: Partitions, Retention: 7 * day},
		{Name: ActivityEnriched, Partitions: Partitions, Retention: 7 * day},
		{Name: Quarantine, Partitions: Partitions, Retention: 30 * day},
		{Name: RecommendationsServed, Partitions: Partitions, Retention: 30 * day},
		compacted(Progress, 1),
		compacted(CDCPosition, 1),
		{Name: CDCRequests, Partitions: 1, Retention: 7 * day},
		{Name: CDCNotifications, Partitions: 1, Retention: 30 * day},
		compacted(EnrichWaiting, 1),
	}
}

// StoreTopic is the declaration of a table's topic, made from the template of store.*.
func StoreTopic(schema, table string) kafka.Topic {
	return compacted(StorePrefix+schema+"."+table, Partitions)
}

// StoreTransactions is the declaration of the topic of the source's transactions; suffix tells several captures apart.
// One partition keeps it in commit order.
func StoreTransactions(suffix string) kafka.Topic {
	return kafka.Topic{Name: StorePrefix + "transaction" + suffix, Partitions: 1, Retention: 7 * day}
}

// StoreMessages is the declaration of the topic of the source's logical messages.
func StoreMessages() kafka.Topic {
	return kafka.Topic{Name: StorePrefix + "message", Partitions: Partitions, Retention: 7 * day}
}

// OutboxTopic is the declaration of an outbox topic, made from the template of them all.
func OutboxTopic(name string) kafka.Topic {
	return kafka.Topic{Name: name, Partitions: Partitions, Retention: 7 * day}
}

func compacted(name string, partitions int32) kafka.Topic {
	return kafka.Topic{Name: name, Partitions: partitions, Compact: true, Retention: 30 * day, MinLag: day}
}

// Subject is the registry's subject of a topic's values.
func Subject(topic string) string { return topic + "-value" }

// Compatibility is the level that our own subjects are held to.
const Compatibility = "FULL_TRANSITIVE"

// Latest is the newest released schema of a declared topic, as Avro JSON.
func Latest(topic string) string {
	all := Released(topic)
	return all[len(all)-1]
}

// Released are all released schemas of a declared topic, oldest first. It panics for a topic that is not declared:
// names are constants of this package.
func Released(topic string) []string {
	files, err := fs.Glob(avroFiles, "avro/"+topic+"/v*.avsc")
	if err != nil || len(files) == 0 {
		panic(fmt.Sprintf("schemas: no schema is embedded for topic %q", topic))
	}
	slices.SortFunc(files, func(a, b string) int { return version(a) - version(b) })
	var out []string
	for _, f := range files {
		text, err := avroFiles.ReadFile(f)
		if err != nil {
			panic(fmt.Sprintf("schemas: embedded file %s: %v", f, err))
		}
		out = append(out, string(text))
	}
	return out
}

func version(file string) int {
	base := file[strings.LastIndex(file, "/v")+2:]
	n, err := strconv.Atoi(strings.TrimSuffix(base, ".avsc"))
	if err != nil {
		panic(fmt.Sprintf("schemas: embedded file %s is not named vN.avsc", file))
	}
	return n
}

// SalesMigrations are the goose migrations of the sales database.
func SalesMigrations() fs.FS {
	sub, err := fs.Sub(salesFiles, "sql/sales")
	if err != nil {
		panic(fmt.Sprintf("schemas: %v", err))
	}
	return sub
}
