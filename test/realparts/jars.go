package realparts

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"text/template"
)

// jarsPOM lists artefacts for the Maven client, whose configuration says where they come from. Optional and provided
// dependencies are not copied, as for any program that uses these artefacts.
var jarsPOM = template.Must(template.New("pom").Parse(`<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>io.millrace</groupId>
  <artifactId>jars-for-tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
{{- range .}}
    <dependency><groupId>{{.Group}}</groupId><artifactId>{{.Name}}</artifactId><version>{{.Version}}</version></dependency>
{{- end}}
  </dependencies>
</project>
`))

// artefact is what the Maven client is asked for.
type artefact struct{ Group, Name, Version string }

// jars returns the cache's directory with the artefacts and all that they need when they run. It is named after the
// first of them.
func jars(ctx context.Context, artefacts ...artefact) (string, error) {
	part := artefacts[0].Name + " " + artefacts[0].Version
	if err := need(part, kafkaInstall, "java"); err != nil {
		return "", err
	}
	return cached(ctx, artefacts[0].Name+"-"+artefacts[0].Version, func(ctx context.Context, dir string) error {
		tmp, err := os.MkdirTemp("", "jars-")
		if err != nil {
			return fmt.Errorf("make a directory for the list of jars: %w", err)
		}
		defer os.RemoveAll(tmp)
		var pom bytes.Buffer
		if err := jarsPOM.Execute(&pom, artefacts); err != nil {
			return fmt.Errorf("write the list of jars of %s: %w", part, err)
		}
		if err := os.WriteFile(filepath.Join(tmp, "pom.xml"), pom.Bytes(), 0o600); err != nil {
			return fmt.Errorf("write the list of jars of %s: %w", part, err)
		}
		return maven(ctx, part, tmp, "org.apache.maven.plugins:maven-dependency-plugin:3.6.0:copy-dependencies",
			"-DincludeScope=runtime", "-DoutputDirectory="+dir)
	})
}
