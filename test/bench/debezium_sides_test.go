//go:build bench

package bench

import (
	"context"
	"maps"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millrace-io/millrace/test/harness"
	"github.com/millrace-io/millrace/test/realparts"
)

// millrace is cdc as it comes but for its delivery, with a slot and topics of its own.
func (d *duel) millrace(t *testing.T, delivery string) *contender {
	t.Helper()
	prefix := "millrace_" + delivery + "."
	c := &contender{name: "Millrace, " + strings.ReplaceAll(delivery, "_", " "), ours: true, once: delivery == "exactly_once", slot: "millrace_" + delivery,
		topic: prefix + "store.public.bench_rows", ended: prefix + "store.public.bench_end"}
	env := env("KAFKA_BROKERS", strings.Join(d.brokers, ","), "KAFKA_TOPIC_PREFIX", prefix, "REGISTRY_URL", d.registry.URL,
		"SOURCE_URL", d.standby.DSN("cdc", "postgres"), "PRIVACY_KEY_FILE", harness.KeyFile(t), "CDC_PUBLICATION", publication,
		"CDC_SLOT", c.slot, "CDC_DELIVERY", delivery, "LOG_LEVEL", "info")
	c.start = func(t *testing.T) capture {
		p := harness.Start(t, "cdc", env)
		return capture{pid: p.PID(), stop: func(t *testing.T) {
			p.Stop(syscall.SIGTERM)
			t.Log(p.Tail(20)) // what it went through, for figures that surprise
		}}
	}
	return c
}

// tuned is what makes Debezium fast: more records at a time, larger requests, and no waiting for more when there are none.
func tuned() map[string]string {
	return map[string]string{
		"max.batch.size":                     "8192",
		"max.queue.size":                     "65536",
		"poll.interval.ms":                   "1",
		"producer.override.batch.size":       "524288",
		"producer.override.linger.ms":        "5",
		"producer.override.compression.type": "snappy", // ours
	}
}

// debezium is Debezium's connector in a worker of its own, from its first start on with the same slot, topics and offsets.
// Its schemas are registered at the first start and only looked up later, which is about twice as fast as registering.
func (d *duel) debezium(t *testing.T, variant string, settings map[string]string, exactlyOnce bool) *contender {
	t.Helper()
	id := "debezium_" + strings.NewReplacer(" ", "_", ",", "").Replace(variant)
	c := &contender{name: "Debezium " + variant, once: exactlyOnce, slot: id, topic: id + ".public.bench_rows", ended: id + ".public.bench_end"}
	for topic, partitions := range map[string]int32{c.topic: 6, c.ended: 1} {
		if _, err := d.admin.CreateTopic(t.Context(), partitions, 1, nil, topic); err != nil {
			t.Fatal(err)
		}
	}
	properties := map[string]string{"group.id": id, "config.storage.topic": id + "-configs", "offset.storage.topic": id + "-offsets", "status.storage.topic": id + "-status"}
	config := d.connector(t, id)
	maps.Copy(config, settings)
	if exactlyOnce {
		properties["exactly.once.source.support"] = "enabled"
		config["exactly.once.support"] = "required"
	}
	first := true
	c.start = func(t *testing.T) capture {
		w := realparts.ConnectWorker(t, realparts.ConnectOptions{Brokers: d.brokers, Properties: properties, FullSpeed: true,
			Plugins: []realparts.Plugin{realparts.DebeziumPostgres, realparts.ApicurioConverter}})
		for _, which := range []string{"key.converter", "value.converter"} {
			config[which+".apicurio.registry.auto-register"] = strconv.FormatBool(first)
			config[which+".apicurio.registry.find-latest"] = strconv.FormatBool(!first)
		}
		first = false
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := w.Create(ctx, id, config); err != nil {
			t.Fatal(err)
		}
		return capture{pid: w.PID(), stop: func(t *testing.T) {
			if err := w.Stop(); err != nil {
				t.Fatal(err)
			}
		}}
	}
	return c
}

// connector is the least that Debezium must be told to read from a standby without a snapshot.
func (d *duel) connector(t *testing.T, id string) map[string]string {
	t.Helper()
	source, err := pgconn.ParseConfig(d.standby.DSN("cdc", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	config := map[string]string{
		"connector.class":             "io.debezium.connector.postgresql.PostgresConnector",
		"database.hostname":           source.Host,
		"database.port":               strconv.Itoa(int(source.Port)),
		"database.user":               source.User,
		"database.password":           "unused",
		"database.dbname":             source.Database,
		"topic.prefix":                id,
		"plugin.name":                 "pgoutput",
		"slot.name":                   id,
		"publication.name":            publication,
		"publication.autocreate.mode": "disabled",
		"snapshot.mode":               "no_data",
		"snapshot.isolation.mode":     "repeatable_read", // a standby refuses its default
	}
	maps.Copy(config, d.registry.AvroConverter())
	return config
}
