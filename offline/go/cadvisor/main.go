// cAdvisor's metrics from its own library module, for hosts that cannot get its image.
//
// The official program lies in a Go module that is not published, its collectors and metrics lie in two that are. This
// one offers the same flags and series of /metrics, and /healthz; it has no web pages, no REST API and no storage drivers.
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	_ "github.com/google/cadvisor/container/docker/install"
	_ "github.com/google/cadvisor/container/podman/install"
	_ "github.com/google/cadvisor/fs/devicemapper/install"
	"github.com/google/cadvisor/lib/cache/memory"
	"github.com/google/cadvisor/lib/container"
	_ "github.com/google/cadvisor/lib/container/containerd/install"
	_ "github.com/google/cadvisor/lib/container/crio/install"
	_ "github.com/google/cadvisor/lib/container/systemd/install"
	_ "github.com/google/cadvisor/lib/fs/btrfs/install"
	_ "github.com/google/cadvisor/lib/fs/nfs/install"
	_ "github.com/google/cadvisor/lib/fs/overlay/install"
	_ "github.com/google/cadvisor/lib/fs/tmpfs/install"
	_ "github.com/google/cadvisor/lib/fs/vfs/install"
	_ "github.com/google/cadvisor/lib/fs/zfs/install"
	"github.com/google/cadvisor/lib/manager"
	"github.com/google/cadvisor/lib/metrics"
	"github.com/google/cadvisor/lib/model"
	"github.com/google/cadvisor/lib/utils/sysfs"
	"github.com/google/cadvisor/lib/version"
	"github.com/google/cadvisor/utils/cpuload"
	"github.com/google/cadvisor/utils/oomparser"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

var (
	listenIP        = flag.String("listen_ip", "", "address to listen on; empty: all")
	port            = flag.Int("port", 8080, "port to listen on")
	showVersion     = flag.Bool("version", false, "print the version and exit")
	endpoint        = flag.String("prometheus_endpoint", "/metrics", "path of the metrics")
	storeLabels     = flag.Bool("store_container_labels", true, "make every container label a metric label")
	labelList       = flag.String("whitelisted_container_labels", "", "container labels to keep without store_container_labels")
	environmentList = flag.String("env_metadata_whitelist", "", "prefixes of container environment variables to keep")
	cgroupList      = flag.String("raw_cgroup_prefix_whitelist", "", "cgroup prefixes to report in spite of docker_only")
	keep            = flag.Duration("storage_duration", 2*time.Minute, "how long to keep samples")

	enabled  = container.MetricSet{}
	disabled = container.MetricSet{
		container.CPUSetMetrics: {}, container.CPUTopologyMetrics: {}, container.HugetlbUsageMetrics: {},
		container.MemoryNumaMetrics: {}, container.NetworkAdvancedTcpUsageMetrics: {},
		container.NetworkTcpUsageMetrics: {}, container.NetworkUdpUsageMetrics: {}, container.ProcessMetrics: {},
		container.ProcessSchedulerMetrics: {}, container.ReferencedMemoryMetrics: {}, container.ResctrlMetrics: {},
	}
)

// countingOOM adds to the library's answers what it leaves to the program: how often the kernel killed in a container.
type countingOOM struct {
	manager.Manager
	mutex sync.Mutex
	kills map[string]uint64 // by the container's cgroup name
}

func (c *countingOOM) watch() {
	log, err := oomparser.New()
	if err != nil {
		klog.Warningf("the kernel log cannot be read, so container_oom_events_total stays 0: %v", err)
		return
	}
	kills := make(chan *oomparser.OomInstance)
	go log.StreamOoms(kills)
	for kill := range kills {
		c.mutex.Lock()
		c.kills[kill.ContainerName]++
		c.mutex.Unlock()
	}
}

func (c *countingOOM) GetRequestedContainersInfo(
	name string, options model.RequestOptions,
) (map[string]*model.ContainerInfo, error) {
	found, err := c.Manager.GetRequestedContainersInfo(name, options)
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, info := range found {
		for _, sample := range info.Stats {
			sample.OOMEvents = c.kills[info.Name]
		}
	}
	return found, err
}

func main() {
	flag.Var(&enabled, "enable_metrics", "groups of `metrics` to report, instead of all but disable_metrics; of "+container.AllMetrics.String())
	flag.Var(&disabled, "disable_metrics", "groups of `metrics` to leave out")
	klog.InitFlags(nil)
	flag.Parse()
	if *showVersion {
		fmt.Printf("cAdvisor version %s\n", version.Version)
		return
	}
	included := enabled
	if len(included) == 0 {
		included = container.AllMetrics.Difference(disabled)
	}
	labels := metrics.DefaultContainerLabels
	if !*storeLabels {
		labels = metrics.BaseContainerLabels(strings.Split(*labelList, ","))
	}
	manager.CpuLoadReaderFactory = func() (manager.CpuLoadReader, error) { return cpuload.New() }
	library, err := manager.New(memory.New(*keep, nil), sysfs.NewRealSysFs(), manager.HousekeepingConfigFlags, included,
		strings.Split(*cgroupList, ","), strings.Split(*environmentList, ","), "", 0)
	if err != nil {
		klog.Fatalf("no manager: %v", err)
	}
	if err := library.Start(); err != nil {
		klog.Fatalf("the manager does not start: %v", err)
	}
	containers := &countingOOM{Manager: library, kills: map[string]uint64{}}
	go containers.watch()
	go stopOnSignal(library)

	registry := prometheus.NewRegistry()
	registry.MustRegister(
		metrics.NewPrometheusCollector(containers, labels, included, clock.RealClock{},
			model.RequestOptions{IdType: model.TypeName, Count: 1, Recursive: true}),
		metrics.NewPrometheusMachineCollector(containers, included),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	http.Handle(*endpoint, promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	klog.Infof("cAdvisor %s listens on port %d", version.Version, *port)
	klog.Fatal(http.ListenAndServe(net.JoinHostPort(*listenIP, strconv.Itoa(*port)), nil))
}

// stopOnSignal ends the program well: as a container's first process it would otherwise ignore SIGTERM.
func stopOnSignal(library manager.Manager) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	<-signals
	if err := library.Stop(); err != nil {
		klog.Errorf("the manager does not stop well: %v", err)
	}
	os.Exit(0)
}
