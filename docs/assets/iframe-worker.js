/* A page opened from a folder may not start a worker; this runs the search worker's script in a hidden frame instead. */
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.append(this.frame)
      const inner = this.frame.contentWindow
      // Both sides get copies, as with a real worker: each changes what it was handed.
      inner.postMessage = (message) => {
        const data = structuredClone(message)
        setTimeout(() => this.onmessage && this.onmessage(new MessageEvent("message", { data })))
      }
      this.loaded = new Promise((resolve, reject) => {
        const script = inner.document.createElement("script")
        script.src = url
        script.onload = resolve
        script.onerror = reject
        inner.document.body.append(script)
      })
      this.loaded.catch((error) => this.onerror && this.onerror(error))
    }
    postMessage(message) {
      const data = structuredClone(message)
      this.loaded.then(() => {
        const inner = this.frame.contentWindow
        if (inner) inner.onmessage(new inner.MessageEvent("message", { data }))
      })
    }
    terminate() {
      this.frame.remove()
    }
  }
}
