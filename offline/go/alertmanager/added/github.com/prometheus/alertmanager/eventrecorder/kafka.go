package eventrecorder

import (
	"errors"
	"log/slog"

	"github.com/prometheus/alertmanager/eventrecorder/eventrecorderpb"
	"github.com/prometheus/client_golang/prometheus"
	commoncfg "github.com/prometheus/common/config"
)

var errNoKafka = errors.New("kafka_outputs is left out of this build of AlertManager")

// KafkaOutputConfig has what the recorder logs and the configuration resolves. Nothing gets as far as having one.
type KafkaOutputConfig struct {
	Brokers   []string
	Topic     string
	TLSConfig *commoncfg.TLSConfig
}

// UnmarshalYAML says that it is left out, so that amtool says it as well.
func (*KafkaOutputConfig) UnmarshalYAML(func(any) error) error { return errNoKafka }

func (KafkaOutputConfig) equal(KafkaOutputConfig) bool { return true }

// KafkaOutput takes the place of the one with which AlertManager compiles a client of Kafka, a third of its build.
type KafkaOutput struct{}

// NewKafkaOutput says that it is left out.
func NewKafkaOutput(
	KafkaOutputConfig, string, *prometheus.CounterVec, *prometheus.CounterVec, *slog.Logger,
) (*KafkaOutput, error) {
	return nil, errNoKafka
}

// Name is that of the output.
func (*KafkaOutput) Name() string { return "kafka" }

// SendEvent says that it is left out.
func (*KafkaOutput) SendEvent(*eventrecorderpb.Event) (int, error) { return 0, errNoKafka }

// Close has nothing to close.
func (*KafkaOutput) Close() error { return nil }
