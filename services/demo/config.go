package demo

import (
	"fmt"
	"net/url"

	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/postgres"
)

// Config is the demo section.
type Config struct {
	URL                config.Secret `yaml:"url" doc:"primary of the demo store's database, with the right to create tables and roles; the only write access in the system"`
	Rate               float64       `yaml:"rate" doc:"orders per second on average over a week; the days before a new store is opened grow to it; 0 makes none"`
	Seed               uint64        `yaml:"seed" doc:"seed of the generated store; matters only when the store is created"`
	HistoryDays        int           `yaml:"history_days" doc:"days of past orders in a new store"`
	CollectURL         string        `yaml:"collect_url" doc:"where a browser reaches collect, for example https://collect.example; empty means where the shop page comes from"`
	RecommendURL       string        `yaml:"recommend_url" doc:"where a browser reaches recommend; empty means where the shop page comes from"`
	InternalCollectURL string        `yaml:"internal_collect_url" doc:"where the simulated shoppers send their activity; empty means collect_url, and if that is empty too they send none"`
}

// maxRate is what one writer can be trusted with, in orders per second.
const maxRate = 1000

// DefaultConfig is an order every five seconds on a store with sixty days of history.
func DefaultConfig() Config { return Config{Rate: 0.2, Seed: 1, HistoryDays: 60} }

// Validate names the key that is wrong and never shows a secret. An empty url is
// left to New, because only a process that runs the demo needs one.
func (c Config) Validate() error {
	if err := postgres.ValidateURL("url", c.URL); err != nil {
		return err
	}
	if !(c.Rate >= 0 && c.Rate <= maxRate) {
		return fmt.Errorf("rate: must be between 0 and %d orders per second", maxRate)
	}
	if c.HistoryDays < 1 || c.HistoryDays > 366 {
		return fmt.Errorf("history_days: must be between 1 and 366")
	}
	for _, k := range []struct{ key, value string }{
		{"collect_url", c.CollectURL}, {"recommend_url", c.RecommendURL}, {"internal_collect_url", c.InternalCollectURL},
	} {
		if err := validateBase(k.key, k.value); err != nil {
			return err
		}
	}
	return nil
}

// validateBase accepts "" or a base URL. It must have no query, fragment or user,
// for a path is appended to it and its origin goes into a header.
func validateBase(key, value string) error {
	if value == "" {
		return nil
	}
	u, err := url.Parse(value)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%s: write http://host:port or https://host, without user, query or fragment", key)
	}
	return nil
}
