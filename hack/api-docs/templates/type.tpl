{{- define "type" -}}
{{- $type := . -}}
{{- if markdownShouldRenderType $type }}
### {{ $type.Name }}

{{ $type.Doc }}

{{ if $type.References -}}
Appears in:
{{- range $type.SortedReferences }} {{ markdownRenderTypeLink . }}{{ end }}

{{ end -}}
{{ if $type.Members -}}
| Field | Description | Validation |
| --- | --- | --- |
{{ if $type.GVK -}}
| `apiVersion` _string_ | `{{ $type.GVK.Group }}/{{ $type.GVK.Version }}` | |
| `kind` _string_ | `{{ $type.GVK.Kind }}` | |
{{ end -}}
{{ range $type.Members -}}
| `{{ .Name }}` _{{ markdownRenderType .Type }}_ | {{ template "type_members" . }} | {{ range .Validation }}{{ if not (hasPrefix "Optional" .) }}{{ if not (hasPrefix "Type" .) }}{{ . | replace "|" "\\|" }}<br />{{ end }}{{ end }}{{ end }} |
{{ end -}}
{{ end -}}
{{- end -}}
{{- end -}}
