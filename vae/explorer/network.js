"use strict";
/*
 * The model: encoder, decoder, the six likelihoods and the bound, in plain JavaScript.
 *
 * Nothing here knows the page. Numbers are those of vae/model.py, vae/networks.py and vae/likelihoods.py; the tests
 * compare both. An image is an array [C * H * W], channel by channel, values in [0, 1]; features are a vector [F] or maps
 * [F * positions]. Sums are taken in double precision.
 */

// ---------------------------------------------------------------------------------------------------------- layers

/** y[at + n] += sum over k of factors[k] * rows[starts[k] + n] for n < length, four terms at a time. */
function addRows(y, at, length, rows, starts, factors) {
  for (let k = 0; k < starts.length; k += 4) {
    const s0 = starts[k], s1 = starts[k + 1] ?? 0, s2 = starts[k + 2] ?? 0, s3 = starts[k + 3] ?? 0;
    const f0 = factors[k], f1 = factors[k + 1] ?? 0, f2 = factors[k + 2] ?? 0, f3 = factors[k + 3] ?? 0;
    for (let n = 0; n < length; n++) {
      y[at + n] += f0 * rows[s0 + n] + f1 * rows[s1 + n] + f2 * rows[s2 + n] + f3 * rows[s3 + n];
    }
  }
}

/** y = W x + b of a vector [in] -> [out], with the weight as [in, out]: what ReLU and dark pixels set to 0 is skipped. */
function dense({ weight, bias }, x) {
  const y = Float64Array.from(bias), places = Array.from(x.keys()).filter((i) => x[i] !== 0);
  addRows(y, 0, y.length, weight, places.map((i) => i * y.length), places.map((i) => x[i]));
  return y;
}

/** y = W x + b at every position: [in * positions] -> [out * positions], with the weight as [out, in]. */
function pointwise({ weight, bias }, x) {
  const fanIn = weight.length / bias.length, positions = x.length / fanIn;
  const y = new Float64Array(bias.length * positions), starts = Array.from({ length: fanIn }, (_, i) => i * positions);
  const rows = Float32Array.from(x);  // the type of weights too, which keeps addRows fast
  for (let o = 0; o < bias.length; o++) {
    y.fill(bias[o], o * positions, (o + 1) * positions);
    addRows(y, o * positions, positions, rows, starts, weight.subarray(o * fanIn, (o + 1) * fanIn));
  }
  return y;
}

/**
 * A convolution [in, *from] -> [out, *to], or its transpose, which is the same loop with input and output exchanged.
 * The weight is [coarse channels, fine channels, *kernel]; position y of the coarse grid meets y * stride + ky - padding of the fine one.
 */
function convolution({ weight, bias, kernel, stride, padding, from, to, transposed }, x) {
  const [coarseHeight, coarseWidth] = transposed ? from : to, [fineHeight, fineWidth] = transposed ? to : from;
  const coarseArea = coarseHeight * coarseWidth, fineArea = fineHeight * fineWidth;
  const area = to[0] * to[1], y = new Float64Array(bias.length * area);
  for (let o = 0; o < bias.length; o++) y.fill(bias[o], o * area, (o + 1) * area);
  const coarseChannels = transposed ? x.length / coarseArea : bias.length;
  const fineChannels = transposed ? bias.length : x.length / fineArea;
  let place = 0;
  for (let a = 0; a < coarseChannels; a++) {
    for (let b = 0; b < fineChannels; b++) {
      for (let ky = 0; ky < kernel[0]; ky++) {
        for (let kx = 0; kx < kernel[1]; kx++) {
          const w = weight[place++];
          const first = Math.ceil(Math.max(0, padding - kx) / stride);
          const last = Math.min(coarseWidth - 1, Math.floor((fineWidth - 1 + padding - kx) / stride));
          for (let row = 0; row < coarseHeight; row++) {
            const fineRow = row * stride + ky - padding;
            if (fineRow < 0 || fineRow >= fineHeight) continue;
            const coarse = a * coarseArea + row * coarseWidth;
            const fine = b * fineArea + fineRow * fineWidth + kx - padding;
            if (transposed) for (let c = first; c <= last; c++) y[fine + c * stride] += w * x[coarse + c];
            else for (let c = first; c <= last; c++) y[coarse + c] += w * x[fine + c * stride];
          }
        }
      }
    }
  }
  return y;
}

const LAYERS = {
  dense,
  pointwise,
  convolution,
  relu: (_, x) => x.map((value) => (value > 0 ? value : 0)),
  tanh: (_, x) => x.map(Math.tanh),
};

/** A list of layers applied in their order. */
const run = (layers, x) => layers.reduce((features, layer) => LAYERS[layer.kind](layer, features), x);

// ----------------------------------------------------------------------------------------------------- likelihoods

const sigmoid = (l) => 1 / (1 + Math.exp(-l));
const softplus = (l) => Math.max(l, 0) + Math.log1p(Math.exp(-Math.abs(l)));  // log(1 + e^l)
const logSigmoid = (l) => -softplus(-l);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** log N(x; mean, scale^2). */
function logNormal(x, mean, scale) {
  return -0.5 * ((x - mean) / scale) ** 2 - Math.log(scale) - 0.5 * Math.log(2 * Math.PI);
}

/** Sum over k = 1..255 of sigmoid((loc - (k - 1/2) / 255) / scale), over 255: the mean of the discretized logistic. */
function discretizedLogisticMean(loc, scale) {
  const centre = 255 * loc, width = 255 * scale;  // in grey levels
  if (width > 4) {  // Euler-Maclaurin: the integral and one correction at each end, right to 1e-5 of a level
    const slope = (l) => (sigmoid(l) * sigmoid(-l)) / width;
    const integral = width * (softplus(centre / width) - softplus((centre - 255) / width));
    return (integral + (slope((centre - 255) / width) - slope(centre / width)) / 24) / 255;
  }
  const first = Math.max(1, Math.floor(centre - 40 * width)), last = Math.min(255, Math.ceil(centre + 40 * width));
  let sum = first - 1;  // levels further below are reached for certain, those further above never
  for (let level = first; level <= last; level++) sum += sigmoid((centre - level + 0.5) / width);
  return Math.min(sum, 255) / 255;
}

/**
 * Each likelihood: the image of p(x|z), its mean or mode, and log p(x|z), at pixel i of parameters p.
 * `options` are what the model's own likelihood was made with.
 */
const PIXEL_LIKELIHOODS = {
  bernoulli: {
    mean: (p, i) => sigmoid(p.logits[i]),
    logProb: (p, i, x) => x * p.logits[i] - softplus(p.logits[i]),
  },
  continuous_bernoulli: {
    mean(p, i) {
      const h = p.logits[i] / 2;
      return 0.5 + 0.5 * (Math.abs(h) < 1e-2 ? h / 3 - h ** 3 / 45 : 1 / Math.tanh(h) - 1 / h);
    },
    logProb(p, i, x) {
      const u = Math.abs(p.logits[i]) / 2;  // log of sinh(u) / u, the normaliser
      const normaliser = u < 1e-2 ? u ** 2 / 6 - u ** 4 / 180 : u + Math.log1p(-Math.exp(-2 * u)) - Math.log(2 * u);
      return (x - 0.5) * p.logits[i] - normaliser;
    },
  },
  gaussian: {
    mean: (p, i) => sigmoid(p.logits[i]),
    logProb: (p, i, x, { minScale, logVarBounds }) =>
      logNormal(x, sigmoid(p.logits[i]), Math.sqrt(Math.exp(clamp(p.log_var[i], ...logVarBounds)) + minScale ** 2)),
  },
  gaussian_fixed: {
    mean: (p, i) => sigmoid(p.logits[i]),
    logProb: (p, i, x, { scale }) => logNormal(x, sigmoid(p.logits[i]), scale),
  },
  discretized_logistic: {
    mean: (p, i, { logScaleBounds }) =>
      discretizedLogisticMean(sigmoid(p.logits[i]), Math.exp(clamp(p.log_scale[i] - 2, ...logScaleBounds))),
    logProb(p, i, x, { logScaleBounds }) {
      const inverseScale = Math.exp(-clamp(p.log_scale[i] - 2, ...logScaleBounds)), halfBin = (0.5 / 255) * inverseScale;
      const middle = (x - sigmoid(p.logits[i])) * inverseScale;
      if (x < 0.5 / 255) return logSigmoid(middle + halfBin);
      if (x > 1 - 0.5 / 255) return logSigmoid(halfBin - middle);
      return logSigmoid(middle + halfBin) + logSigmoid(halfBin - middle) + Math.log(-Math.expm1(-2 * halfBin));
    },
  },
};

/** p(x|z) whose pixels and channels each have a density of their own. */
class PixelLikelihood {
  constructor({ name, heads, ...options }) {
    Object.assign(this, { heads, options }, PIXEL_LIKELIHOODS[name]);
  }

  parameters(features) {
    return Object.fromEntries(Object.entries(this.heads).map(([name, layers]) => [name, run(layers, features)]));
  }

  image(p) {
    return p.logits.map((_, i) => this.mean(p, i, this.options));
  }

  logDensity(p, x) {
    let sum = 0;
    for (let i = 0; i < x.length; i++) sum += this.logProb(p, i, x[i], this.options);
    return sum;
  }
}

/** p(x|z) that chooses one of a palette's colours at each position; any other colour keeps a small probability. */
class PaletteLikelihood {
  constructor({ heads, palette, stray }) {
    Object.assign(this, { heads, palette, stray });  // palette: [[r, g, b], ...], 8-bit
    this.places = new Map(palette.map((colour, place) => [colour.join(), place]));
  }

  parameters(features) {
    const logits = run(this.heads.colours, run(this.heads.vectors, features));
    return { logits, positions: logits.length / this.palette.length };
  }

  image({ logits, positions }) {
    const best = new Int32Array(positions), top = logits.slice(0, positions);
    for (let k = 1; k < this.palette.length; k++) {
      for (let p = 0; p < positions; p++) {
        if (logits[k * positions + p] > top[p]) [best[p], top[p]] = [k, logits[k * positions + p]];
      }
    }
    const image = new Float64Array(this.palette[0].length * positions);
    return image.map((_, i) => this.palette[best[i % positions]][Math.floor(i / positions)] / 255);
  }

  logDensity({ logits, positions }, x) {
    const channels = this.palette[0].length, logStray = Math.log(this.stray) - channels * Math.log(256);
    let total = 0;
    for (let p = 0; p < positions; p++) {
      const colour = Array.from({ length: channels }, (_, channel) => Math.round(255 * x[channel * positions + p]));
      const place = this.places.get(colour.join());
      let top = -Infinity, sum = 0;
      for (let k = 0; k < this.palette.length; k++) top = Math.max(top, logits[k * positions + p]);
      for (let k = 0; k < this.palette.length; k++) sum += Math.exp(logits[k * positions + p] - top);
      const drawn = place === undefined ? -Infinity : logits[place * positions + p] - top - Math.log(sum);
      total += softplus(drawn + Math.log1p(-this.stray) - logStray) + logStray;  // log of the sum of both parts
    }
    return total;
  }
}

// -------------------------------------------------------------------------------------------------------- the model

/** The variational auto-encoder of arXiv 1312.6114: the names are those of the class in vae/model.py. */
class VAE {
  constructor({ latentDim, encoder, posterior, logVarBounds, decoder, likelihood }) {
    Object.assign(this, { latentDim, encoder, posterior, logVarBounds, decoder });
    this.likelihood = new (likelihood.name === "categorical" ? PaletteLikelihood : PixelLikelihood)(likelihood);
  }

  /** q(z|x) = N(z; mean, std^2 I), equation 9. */
  encode(x) {
    const features = run(this.encoder, x);
    return {
      mean: run(this.posterior.mean, features),
      std: run(this.posterior.log_var, features).map((logVar) => Math.exp(clamp(logVar, ...this.logVarBounds) / 2)),
    };
  }

  /** The parameters of p(x|z). */
  decode(z) {
    return this.likelihood.parameters(run(this.decoder, z));
  }

  /** The image of p(x|z): its mean, or the mode of a categorical one. */
  generate(z) {
    return this.likelihood.image(this.decode(z));
  }

  /** z = mean + std * eps, equation 4. */
  reparameterize({ mean, std }, eps) {
    return mean.map((m, j) => m + std[j] * eps[j]);
  }

  /** KL(q(z|x) || p(z)) of each latent variable in nats, Appendix B. */
  klPerDimension({ mean, std }) {
    return mean.map((m, j) => 0.5 * (m ** 2 + std[j] ** 2 - 1) - Math.log(std[j]));
  }

  /** The bound of equation 10 with one sample, in nats, and everything it is made of. */
  elbo(x, eps) {
    const q = this.encode(x), z = this.reparameterize(q, eps), p = this.decode(z);
    const klPerDimension = this.klPerDimension(q), kl = klPerDimension.reduce((sum, term) => sum + term, 0);
    const reconstruction = this.likelihood.logDensity(p, x);
    return { elbo: reconstruction - kl, reconstruction, kl, klPerDimension, q, z, p };
  }
}

/** A draw from N(0, I), by Box and Muller. */
function standardNormal(n) {
  return Float64Array.from({ length: n }, () => {
    const radius = Math.sqrt(-2 * Math.log(1 - Math.random()));
    return radius * Math.cos(2 * Math.PI * Math.random());
  });
}
