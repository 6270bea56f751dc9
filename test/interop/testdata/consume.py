"""Reads topics to their end as any Python program does and writes the rows that are left, a JSON object on each line.

Usage: consume.py BROKERS REGISTRY TOPIC…; the output's "topic" says of which topic a "row" is."""

import datetime
import decimal
import json
import sys

from confluent_kafka import DeserializingConsumer, KafkaError, TopicPartition
from confluent_kafka.error import ConsumeError
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer


def text(value):
    """What json.dumps does not know, as PostgreSQL reads it."""
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    raise TypeError(f"no rule for {type(value)}")


def fold(consumer, topic):
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    rows = {}
    left = set(partitions)
    consumer.assign([TopicPartition(topic, p, 0) for p in left])
    while left:
        try:
            message = consumer.poll(30)
        except ConsumeError as error:
            if error.code != KafkaError._PARTITION_EOF:
                raise
            left.discard(error.kafka_message.partition())
            continue
        if message is None:
            raise RuntimeError(f"{topic}: no end within 30 seconds")
        key = json.dumps(message.key(), default=text, sort_keys=True)
        value = message.value()
        if value is None or value["op"] == "d":
            rows.pop(key, None)
        else:
            rows[key] = value["after"]
    return rows.values()


def main(brokers, registry, topics):
    client = SchemaRegistryClient({"url": registry})
    consumer = DeserializingConsumer({
        "bootstrap.servers": brokers,
        "group.id": "interop-python",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "key.deserializer": AvroDeserializer(client),
        "value.deserializer": AvroDeserializer(client),
    })
    for topic in topics:
        for row in fold(consumer, topic):
            print(json.dumps({"topic": topic, "row": row}, default=text))
    consumer.close()


main(sys.argv[1], sys.argv[2], sys.argv[3:])
