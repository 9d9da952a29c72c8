// Reads Kubernetes objects (YAML) from standard input and judges each Deployment as the admission of a namespace with
// Pod Security "restricted" would, with the code of Kubernetes. Fails if a pod would be refused, or if there is none.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

func judge(objects io.Reader) error {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return err
	}
	restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	documents := yaml.NewYAMLReader(bufio.NewReader(objects))
	judged := 0
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		var deployment appsv1.Deployment
		// Other kinds have other fields, which this leaves out.
		if err := yaml.Unmarshal(document, &deployment); err != nil || deployment.Kind != "Deployment" {
			continue
		}
		pod := deployment.Spec.Template
		result := policy.AggregateCheckResults(evaluator.EvaluatePod(restricted, &pod.ObjectMeta, &pod.Spec))
		if !result.Allowed {
			return fmt.Errorf("Deployment %s: %s", deployment.Name, result.ForbiddenDetail())
		}
		judged++
	}
	if judged == 0 {
		return errors.New("there is no Deployment")
	}
	return nil
}

func main() {
	if err := judge(os.Stdin); err != nil {
		fmt.Fprintf(os.Stderr, "Pod Security \"restricted\": %v\n", err)
		os.Exit(1)
	}
}
