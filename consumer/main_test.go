package consumer_test

import (
	"os"
	"testing"

	"github.com/datafly/bridge/internal/kafkatest"
)

func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }
