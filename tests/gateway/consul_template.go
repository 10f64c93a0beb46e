// Renders a template as consul-template does, with what Consul says given as JSON on standard input.
package main

import (
	"encoding/json"
	"log"
	"os"
	"regexp"
	"text/template"
)

type server struct {
	Address string
	Port    int
}

type name struct{ Name string }

func main() {
	log.SetFlags(0)
	var known struct {
		Services []string            `json:"services"`
		Service  map[string][]server `json:"service"`
	}
	if err := json.NewDecoder(os.Stdin).Decode(&known); err != nil {
		log.Fatal(err)
	}
	functions := template.FuncMap{
		"services": func() []name {
			var names []name
			for _, each := range known.Services {
				names = append(names, name{each})
			}
			return names
		},
		"service":    func(query string) []server { return known.Service[query] },
		"regexMatch": regexp.MatchString,
		"regexReplaceAll": func(expression, replacement, text string) (string, error) {
			compiled, err := regexp.Compile(expression)
			if err != nil {
				return "", err
			}
			return compiled.ReplaceAllString(text, replacement), nil
		},
	}
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	parsed, err := template.New("").Funcs(functions).Parse(string(text))
	if err != nil {
		log.Fatal(err)
	}
	if err := parsed.Execute(os.Stdout, nil); err != nil {
		log.Fatal(err)
	}
}
