package consumer_test

import (
	"flag"
	"os"
	"testing"

	"github.com/datafly/bridge/internal/kafkatest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The parallel tests wait, for brokers and sessions, more than they work.
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		if err := flag.Set("test.parallel", "4"); err != nil {
			panic(err)
		}
	}
	os.Exit(kafkatest.Main(m))
}
