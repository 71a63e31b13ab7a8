// dashboard_check reads dashboards as strictly as Grafana's own types do: a member, a panel or an option that Grafana
// does not know is an error.
package main

import (
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

func main() {
	known := cog.NewRuntime()
	known.RegisterPanelcfgVariant(timeseries.VariantConfig())
	known.RegisterDataqueryVariant(prometheus.VariantConfig())
	for _, path := range os.Args[1:] {
		if wrong := check(path); wrong != "" {
			fmt.Fprintf(os.Stderr, "%s: %s\n", path, wrong)
			os.Exit(1)
		}
	}
}

func check(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	var read dashboard.Dashboard
	// An empty list of errors comes as an error that says nothing.
	for _, err := range []error{read.UnmarshalJSONStrict(raw), read.Validate()} {
		if err != nil && err.Error() != "" {
			return err.Error()
		}
	}
	return ""
}
