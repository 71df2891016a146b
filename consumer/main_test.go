package consumer_test

import (
	"flag"
	"os"
	"testing"

	"go.uber.org/goleak"

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
	// With its brokers frozen, franz-go 1.22.2 leaves the goroutine behind that
	// tried to leave the group; the process ends right after a stop.
	os.Exit(kafkatest.Main(m, goleak.IgnoreAnyFunction("github.com/twmb/franz-go/pkg/kgo.(*Client).LeaveGroupContext.func1")))
}
