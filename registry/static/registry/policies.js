// The script of the policy page. It adds rows without a reload, and offers only the operators and
// choices that fit a field. Without the script the same buttons ask the server for an empty row.
"use strict";

(() => {
  const fields = JSON.parse(document.getElementById("policy-fields").textContent);
  const form = document.getElementById("policy_form");

  const counter = (prefix) => form.elements[`${prefix}-TOTAL_FORMS`];

  function stamped(template, index) {
    const holder = document.createElement("template");
    // Replace only the first __prefix__ of a name: an inner empty row keeps its own.
    holder.innerHTML = template.innerHTML.replace(
      /(rules-(?:\d+-conditions-)?)__prefix__/g, `$1${index}`
    );
    return holder.content;
  }

  function addRule() {
    const total = counter("rules");
    const content = stamped(document.getElementById("blank-rule"), total.value);
    const rule = content.querySelector(".rule");
    document.getElementById("rules").append(content);
    total.value = Number(total.value) + 1;
    prepareRule(rule);
    rule.querySelector("input[type=text]").focus();
  }

  function addCondition(rule) {
    const table = rule.querySelector(".conditions");
    const total = counter(table.dataset.prefix);
    const content = stamped(rule.querySelector("template.blank-condition"), total.value);
    const row = content.querySelector(".condition");
    table.tBodies[0].append(content);
    total.value = Number(total.value) + 1;
    prepareCondition(row);
    row.querySelector("select").focus();
  }

  function control(row, name) {
    return row.querySelector(`[name$="-${name}"]`);
  }

  function offerOperators(row) {
    const field = fields[control(row, "field").value];
    const operator = control(row, "operator");
    for (const option of operator.options) {
      const fits = !field || option.value === "" || option.value in field.operators;
      option.hidden = option.disabled = !fits;
    }
    if (operator.selectedOptions[0]?.disabled) operator.value = "";
  }

  function showHint(row) {
    const field = fields[control(row, "field").value];
    const argument = control(row, "argument");
    argument.classList.toggle("unused", !(field && field.argument) && !argument.value);
    argument.title = argument.placeholder = field ? field.argument : "";
    control(row, "field").title = field ? field.help : "";
    const hint = field && field.operators[control(row, "operator").value];
    row.querySelector(".hint").textContent = hint || "";
    offerChoices(row, field);
  }

  function offerChoices(row, field) {
    const value = control(row, "value");
    const id = `${value.id}-choices`;
    document.getElementById(id)?.remove();
    value.removeAttribute("list");
    if (!field || !field.choices.length) return;
    const list = document.createElement("datalist");
    list.id = id;
    for (const choice of field.choices) list.append(new Option(choice, choice));
    value.after(list);
    value.setAttribute("list", id);
  }

  function prepareCondition(row) {
    offerOperators(row);
    showHint(row);
    control(row, "field").addEventListener("change", () => { offerOperators(row); showHint(row); });
    control(row, "operator").addEventListener("change", () => showHint(row));
    markRemoved(row);
  }

  function markRemoved(part) {
    const box = part.querySelector(':scope > .rule-fields [name$="-DELETE"], :scope > .remove input');
    if (!box) return;
    const mark = () => part.classList.toggle("removed", box.checked);
    box.addEventListener("change", mark);
    mark();
  }

  function prepareRule(rule) {
    const action = rule.querySelector('[name$="-action"]');
    const limits = rule.querySelectorAll(".field-throttle_limit, .field-throttle_seconds");
    const show = () => limits.forEach((part) => {
      const filled = part.querySelector("input").value !== "";
      part.hidden = action.value !== "throttle" && !filled;
    });
    action.addEventListener("change", show);
    show();
    rule.querySelectorAll("tr.condition").forEach(prepareCondition);
    markRemoved(rule);
  }

  form.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-add]");
    if (!button) return;
    event.preventDefault();
    if (button.dataset.add === "rule") addRule();
    else addCondition(button.closest(".rule"));
  });
  document.querySelectorAll("#rules > .rule").forEach(prepareRule);
})();
